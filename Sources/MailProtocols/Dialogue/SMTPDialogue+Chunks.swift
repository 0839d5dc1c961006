import NIOCore
import PostriderCore

/// The message as chunks of known length instead of lines up to a dot (CHUNKING, RFC 3030): nothing in it can be taken
/// for its end, and nothing is stuffed.
extension SMTPDialogue {
  /// The chunks of one message: which were written and which are answered.
  struct Chunks {
    var written = 0
    var answered = 0
    /// Why the server refused one; then no more are written.
    var failure: Failure?
    /// The octets of the first chunk, kept until it is answered while nobody knows whether this server takes chunks.
    var first: ByteBuffer?
    /// How many may be without an answer.
    var window: Int

    var mayWrite: Bool { failure == nil && written - answered < window }
  }

  /// The next chunk with its command; `nil` while none may be written, and while there is not enough for one.
  mutating func nextChunk() -> ByteBuffer? {
    guard let chunks, chunks.mayWrite, hasChunk, let octets = encoder?.next(target: SMTPLimits.chunkOctets) else {
      return nil
    }
    if !takesChunks { self.chunks?.first = octets }
    self.chunks?.written += 1
    var buffer = ByteBuffer()
    buffer.reserveCapacity(octets.readableBytes + 32)
    buffer.writeString("BDAT \(octets.readableBytes)\(encoder?.isFinished == true ? " LAST" : "")\r\n")
    buffer.writeImmutableBuffer(octets)
    return buffer
  }

  /// Whether enough is there for a chunk, or the rest of the message.
  private var hasChunk: Bool {
    encoder.map { !$0.isFinished && ($0.isWhole || $0.heldOctets >= SMTPLimits.chunkOctets) } ?? false
  }

  /// Begins when the commands are answered and somebody stands.
  mutating func startChunks(_ transaction: Transaction, _ input: inout LineBuffer) -> Action {
    var transaction = transaction
    encoder = transaction.message.encoder(.chunks)
    // The first chunk of a session goes alone: a server may offer what it then does not know.
    chunks = Chunks(window: takesChunks && transaction.pipelining ? SMTPLimits.chunksAhead : 1)
    transaction.phase = .chunks
    state = .sending(transaction)
    step += 1
    return next(&input)
  }

  mutating func readChunks(_ transaction: Transaction, _ input: inout LineBuffer) throws(Failure) -> Action {
    if let reply = try reply(&input) { return take(chunk: reply, transaction, &input) }
    guard let chunks else { return .wait(.answer, step: step) }
    if let failure = chunks.failure, chunks.answered == chunks.written { return endChunks(failure) }
    if encoder?.isFinished == true { return .wait(.finalAnswer, step: step) }
    if !chunks.mayWrite { return .wait(.answer, step: step) }
    return hasChunk ? .sendBody : .awaitBody
  }

  private mutating func take(
    chunk reply: SMTPReply, _ transaction: Transaction, _ input: inout LineBuffer
  ) -> Action {
    chunks?.answered += 1
    guard let chunks else { return next(&input) }
    // More answers than chunks are answers that nobody asked for.
    if chunks.answered > chunks.written {
      state = .ended
      return .broken(
        Failure(
          encoder?.isFinished == true ? .smtpUncertain : .protocolSyntax, serverWords: redactor.clean(reply.words),
          context: "the server answered a chunk that it has not got"))
    }
    if reply.code == 421 {
      let failure = sorted(reply, at: .message)
      state = .ended
      return .broken(failure)
    }
    if let first = chunks.first, reply.isOfUnknownCommand {
      return startOver(transaction, from: first, &input)
    }
    self.chunks?.first = nil
    if reply.severity == 2, !takesChunks {
      takesChunks = true
      if transaction.pipelining { self.chunks?.window = SMTPLimits.chunksAhead }
    }
    let isLast = encoder?.isFinished == true && chunks.answered == chunks.written
    if isLast, reply.severity == 2 {
      isTransactionOpen = false
      self.chunks = nil
      if chunks.failure == nil {
        return done(.delivery(SMTPDelivery(recipients: transaction.results, reply: reply)))
      }
      state = .ended
      return .broken(
        Failure(
          .smtpUncertain, serverWords: redactor.clean(reply.words),
          context: "the server refused a part of the message and then took its end"))
    }
    // Neither yes nor no, and everything is with the server.
    if isLast, reply.severity < 4 {
      state = .ended
      return .broken(
        Failure(
          .smtpUncertain, serverWords: redactor.clean(reply.words),
          context: "the server answered the end of the message with \(reply.code)"))
    }
    if reply.severity != 2, chunks.failure == nil {
      let failure = sorted(reply, at: .message)
      self.chunks?.failure = failure
    }
    return next(&input)
  }

  /// The server offered CHUNKING and does not know BDAT: the same message begins anew with DATA, and so does every later
  /// one of this session. What had left is put before what is still to come.
  private mutating func startOver(
    _ transaction: Transaction, from first: ByteBuffer, _ input: inout LineBuffer
  ) -> Action {
    refusesChunks = true
    chunks = nil
    encoder = encoder?.again(Array(first.readableBytesView), .dots)
    isTransactionOpen = true
    state = .sending(transaction.again())
    return next(&input)
  }

  /// After a refused chunk the server may hold half a message: RSET comes first (RFC 3030 section 2).
  private mutating func endChunks(_ failure: Failure) -> Action {
    chunks = nil
    encoder = nil
    isTransactionOpen = true
    if failure.code == .protocolSyntax {
      state = .ended
      return .broken(failure)
    }
    state = .idle
    return .failed(failure)
  }
}

extension SMTPReply {
  /// Whether a command was refused and not what came with it (RFC 5321 section 4.2.4, RFC 3463 class 5.5).
  fileprivate var isOfUnknownCommand: Bool {
    [500, 502, 503, 504].contains(code) && enhanced.map { $0.classDigit == 5 && $0.subject == 5 } ?? true
  }
}
