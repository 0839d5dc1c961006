import NIOCore
import PostriderCore

/// Greeting, EHLO, TLS and login.
extension SMTPDialogue {
  mutating func greeting(_ input: inout LineBuffer) throws(Failure) -> Action {
    if let first = input.first, first == 0x15 || first == 0x16 || first == 0x80 {
      throw Failure(.tlsPortMismatch, context: "the port speaks TLS, the profile expects plain text")
    }
    guard let reply = try reply(&input) else { return .wait(.greeting, step: step) }
    if reply.severity == 2 {
      isGreeted = true
      return done(.done(words: reply.words))
    }
    let failure = sorted(reply, at: .greeting)
    state = .ended
    return .broken(failure)
  }

  mutating func readHello(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .hello(let name, let extended) = state, let reply = try reply(&input) else {
      return .wait(.answer, step: step)
    }
    if reply.severity == 2 {
      if extended {
        learn(SMTPExtensions(ehlo: reply))
      } else {
        learn(SMTPExtensions())
      }
      return done(.extensions(extensions, words: reply.words))
    }
    // RFC 5321 section 3.2: a server that does not know EHLO gets HELO.
    if extended, reply.severity == 5 {
      state = .hello(name, extended: false)
      return .send(Self.command("HELO " + name))
    }
    return refused(reply, at: .hello)
  }

  mutating func readStartTLS(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard let reply = try reply(&input) else { return .wait(.answer, step: step) }
    guard reply.code == 220 else {
      state = .ended
      return .broken(
        Failure(.tlsStartTLSMissing, serverWords: redactor.clean(reply.words), context: "STARTTLS was refused"))
    }
    // Anything behind the answer came before TLS and would be read as if it came after it (CVE-2021-22947).
    guard input.isEmpty else {
      throw Failure(.tlsStartTLSInjection, context: "\(input.readableOctets) octets behind the answer to STARTTLS")
    }
    state = .handshaking
    return .startTLS
  }

  mutating func startLogin(_ mechanism: any SASLMechanism, _ credentials: Credentials) throws(Failure) -> Action {
    guard isSecure || allowsClearText else {
      state = .idle
      return .failed(Failure(.tlsStartTLSMissing, context: "credentials are not sent without TLS"))
    }
    redactor.hide(credentials)
    var exchange = SASLExchange(mechanism, commandLimit: SMTPLimits.commandLineOctets)
    let move = try exchange.begin()
    return carryOut(move, exchange)
  }

  private mutating func carryOut(_ move: SASLExchange.Move, _ exchange: SASLExchange) -> Action {
    switch move {
    case .send(let line, let secrets):
      for secret in secrets { redactor.hide(secret) }
      state = .sasl(exchange)
      return .send(Self.command(line))
    case .compute(let computation):
      state = .computing(exchange, nil)
      return .compute(computation)
    }
  }

  mutating func computed(_ result: Result<SASLOutput, Failure>) {
    if case .computing(let exchange, nil) = state { state = .computing(exchange, result) }
  }

  mutating func takeComputed() throws(Failure) -> Action {
    guard case .computing(var exchange, let result?) = state else { return .wait(.answer, step: step) }
    let move = try exchange.computed(result)
    return carryOut(move, exchange)
  }

  mutating func readSASL(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .sasl(var exchange) = state,
      let reply = try reply(&input, limit: SMTPLimits.challengeLineOctets)
    else { return .wait(.answer, step: step) }
    switch reply.code {
    case 334:
      if !input.isEmpty { return unasked(&input) }
      let move = try exchange.challenge(reply.lines.first ?? "")
      return carryOut(move, exchange)
    case 200..<300:
      try exchange.succeeded()
      return done(.done(words: redactor.clean(reply.words, atLogin: true)))
    default:
      let redactor = redactor
      return refused(reply, at: .authentication) { failure in
        exchange.refused(failure) { redactor.clean($0, atLogin: true) }
      }
    }
  }
}
