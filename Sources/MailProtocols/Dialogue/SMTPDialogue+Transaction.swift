import NIOCore
import PostriderCore

/// One message: MAIL, RCPT, then DATA and the message, or the message in chunks, then the answer.
extension SMTPDialogue {
  struct Transaction {
    enum Command {
      case reset
      case mail
      /// With the recipient's place in the list given.
      case recipient(Int)
      case data
    }

    enum Phase {
      /// Commands are written and answered.
      case commands
      /// The message is being written.
      case body
      /// The same, in chunks.
      case chunks
      /// A server took DATA though no recipient stands: a lone dot ends it (RFC 2920 section 3.1).
      case loneDot
      /// Everything is written.
      case answer
    }

    var commands: [(command: Command, text: String)] = []
    var written = 0
    var answered = 0
    var results: [SMTPRecipientResult]
    var accepted = 0
    var failure: Failure?
    let pipelining: Bool
    /// Whether BDAT takes the place of DATA.
    let isChunked: Bool
    /// Whether the server had got a part of the message already, and refused the command that it came with.
    private(set) var isSecond = false
    var phase = Phase.commands
    let message: SMTPMessage

    /// The next group of commands; `nil` when nothing more is to be written.
    mutating func request() -> ByteBuffer? {
      guard written < commands.count, written == answered, failure == nil else { return nil }
      var buffer = ByteBuffer()
      let end = pipelining ? min(commands.count, written + SMTPLimits.recipientsPerGroup) : written + 1
      while written < end {
        // The last group may already show that nobody wants the message.
        if case .data = commands[written].command, buffer.readableBytes == 0, accepted == 0 { break }
        buffer.writeString(commands[written].text + "\r\n")
        written += 1
      }
      return buffer.readableBytes == 0 ? nil : buffer
    }

    /// The same with DATA instead of BDAT, for the recipients that stood. One command at a time: the answer to RSET shows
    /// whether the server took the refused chunk for commands.
    func again() -> Transaction {
      var second = Transaction(results: results, pipelining: false, isChunked: false, message: message)
      second.isSecond = true
      second.commands = [(.reset, "RSET")]
      second.commands += commands.filter { entry in
        switch entry.command {
        case .mail: true
        case .recipient(let index): results[index].failure == nil
        case .reset, .data: false
        }
      }
      second.commands.append((.data, "DATA"))
      return second
    }

    init(results: [SMTPRecipientResult], pipelining: Bool, isChunked: Bool, message: SMTPMessage) {
      self.results = results
      self.pipelining = pipelining
      self.isChunked = isChunked
      self.message = message
    }
  }

  mutating func startTransaction(
    from: String, to: [String], message: SMTPMessage, _ input: inout LineBuffer
  ) -> Action {
    if let failure = refusal(from: from, message: message) {
      state = .idle
      return .failed(failure)
    }
    let results = to.map { SMTPRecipientResult(address: $0, failure: recipientRefusal($0)) }
    guard results.contains(where: { $0.failure == nil }) else {
      state = .idle
      return .done(.delivery(SMTPDelivery(recipients: results, reply: nil)))
    }
    var transaction = Transaction(
      results: results, pipelining: extensions.pipelining, isChunked: extensions.chunking && !refusesChunks,
      message: message)
    if isTransactionOpen { transaction.commands.append((.reset, "RSET")) }
    var mail = "MAIL FROM:<\(from)>"
    if extensions.size { mail += " SIZE=\(message.sizeOctets)" }
    if extensions.eightBitMIME, message.encoding != .sevenBit { mail += " BODY=8BITMIME" }
    if extensions.smtpUTF8,
      message.encoding == .utf8 || !from.utf8.allSatisfy({ $0 < 0x80 })
        || to.contains(where: { !$0.utf8.allSatisfy { $0 < 0x80 } })
    {
      mail += " SMTPUTF8"
    }
    let notification = extensions.dsn ? message.notification : nil
    mail += notification?.mail ?? ""
    transaction.commands.append((.mail, mail))
    for (index, result) in results.enumerated() where result.failure == nil {
      transaction.commands.append(
        (.recipient(index), "RCPT TO:<\(result.address)>" + (notification?.recipient(result.address) ?? "")))
    }
    if !transaction.isChunked { transaction.commands.append((.data, "DATA")) }
    isTransactionOpen = true
    state = .sending(transaction)
    return next(&input)
  }

  /// What can be said of a message without asking the server.
  private func refusal(from: String, message: SMTPMessage) -> Failure? {
    if !from.isEmpty, !Self.isPath(from) {
      return Failure(.smtpRejected, context: "the sender's address holds characters that no address may hold")
    }
    if case .whole(let octets) = message.source, octets.contains(0) {
      return Failure(.smtpContent, context: "the message holds NUL")
    }
    if let maximum = extensions.maximumSizeOctets, message.sizeOctets > maximum {
      return Failure(
        .smtpTooLarge, context: "the message has \(message.sizeOctets) octets, the server takes \(maximum)")
    }
    // RFC 6152 section 3: such a message is not sent to a server that may cut its octets to seven bits.
    if message.encoding == .eightBit, !extensions.eightBitMIME {
      return Failure(
        .smtpContent,
        context: "the message holds 8-bit text and the server does not offer 8BITMIME; submit it encoded in 7 bits "
          + "(quoted-printable or base64)")
    }
    if message.encoding == .utf8, !extensions.smtpUTF8 {
      return Failure(
        .smtpContent, context: "header fields of the message need SMTPUTF8, which the server does not offer")
    }
    if !from.utf8.allSatisfy({ $0 < 0x80 }), !extensions.smtpUTF8 {
      return Failure(.smtpRejected, context: "the sender's address needs SMTPUTF8, which the server does not offer")
    }
    return nil
  }

  private func recipientRefusal(_ address: String) -> Failure? {
    if !Self.isPath(address) {
      return Failure(.smtpRecipient, context: "the address holds characters that no address may hold")
    }
    if !address.utf8.allSatisfy({ $0 < 0x80 }), !extensions.smtpUTF8 {
      return Failure(.smtpRecipient, context: "the address needs SMTPUTF8, which the server does not offer")
    }
    return nil
  }

  /// Whether a text can stand between `<` and `>` without ending or altering the command.
  private static func isPath(_ text: String) -> Bool {
    (1...320).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "<") && $0 != UInt8(ascii: ">")
      }
  }

  mutating func readTransaction(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .sending(var transaction) = state else { return .wait(.answer, step: step) }
    switch transaction.phase {
    case .commands:
      if let commands = transaction.request() {
        if !input.isEmpty { return unasked(&input) }
        state = .sending(transaction)
        return .send(commands)
      }
      if transaction.answered == transaction.written {
        let isWanted = transaction.failure == nil && transaction.accepted > 0
        return transaction.isChunked && isWanted
          ? startChunks(transaction, &input) : finishWithoutMessage(transaction)
      }
      guard let reply = try reply(&input) else { return .wait(.answer, step: step) }
      return take(reply, &transaction, &input)
    case .body:
      if encoder?.isFinished == true {
        transaction.phase = .answer
        state = .sending(transaction)
        step += 1
        return next(&input)
      }
      // An answer before the end of the message can only be a refusal; the rest of the message has no place to go.
      if let reply = try reply(&input) {
        let failure = sorted(reply, at: .message)
        state = .ended
        return .broken(failure)
      }
      return encoder.map { $0.heldOctets == 0 && !$0.isWhole } ?? false ? .awaitBody : .sendBody
    case .chunks: return try readChunks(transaction, &input)
    case .loneDot:
      guard let reply = try reply(&input) else { return .wait(.answer, step: step) }
      if reply.code == 421 { return refused(reply, at: .message) }
      isTransactionOpen = false
      return finishWithoutMessage(transaction)
    case .answer:
      guard let reply = try reply(&input) else { return .wait(.finalAnswer, step: step) }
      isTransactionOpen = false
      // Neither yes nor no, and everything is with the server: what it did with it nobody knows.
      if reply.severity < 4, reply.severity != 2 {
        state = .ended
        return .broken(
          Failure(
            .smtpUncertain, serverWords: redactor.clean(reply.words),
            context: "the server answered the end of the message with \(reply.code)"))
      }
      guard reply.severity == 2 else { return refused(reply, at: .message) }
      return done(.delivery(SMTPDelivery(recipients: transaction.results, reply: reply)))
    }
  }

  private mutating func take(
    _ reply: SMTPReply, _ transaction: inout Transaction, _ input: inout LineBuffer
  ) -> Action {
    let command = transaction.commands[transaction.answered].command
    transaction.answered += 1
    if reply.code == 421 {
      let failure = sorted(reply, at: .mail)
      state = .ended
      return .broken(failure)
    }
    switch command {
    case .reset:
      if transaction.isSecond, reply.severity != 2 {
        state = .ended
        return .broken(
          Failure(
            .protocolSyntax, serverWords: redactor.clean(reply.words),
            context: "the server offers CHUNKING and takes the text of a message for commands"))
      }
    case .mail:
      if reply.severity != 2 {
        transaction.failure = sorted(reply, at: .mail)
        isTransactionOpen = false
      }
    case .recipient(let index):
      if reply.severity == 2 {
        transaction.accepted += 1
      } else {
        let address = transaction.results[index].address
        transaction.results[index] = SMTPRecipientResult(address: address, failure: sorted(reply, at: .recipient))
      }
    case .data:
      let wanted = transaction.failure == nil && transaction.accepted > 0
      if reply.code == 354, !input.isEmpty { return unasked(&input) }
      if reply.code == 354, wanted {
        if !transaction.isSecond { encoder = transaction.message.encoder(.dots) }
        transaction.phase = .body
        state = .sending(transaction)
        step += 1
        return .sendBody
      }
      if reply.code == 354 {
        transaction.phase = .loneDot
        state = .sending(transaction)
        return .send(ByteBuffer(string: ".\r\n"))
      }
      if wanted { transaction.failure = sorted(reply, at: .data) }
    }
    state = .sending(transaction)
    return next(&input)
  }

  /// No message went out: MAIL or DATA was refused, or every recipient.
  private mutating func finishWithoutMessage(_ transaction: Transaction) -> Action {
    state = .idle
    encoder = nil
    if let failure = transaction.failure { return .failed(failure) }
    return .done(.delivery(SMTPDelivery(recipients: transaction.results, reply: nil)))
  }
}
