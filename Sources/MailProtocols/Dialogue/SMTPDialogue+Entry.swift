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

  mutating func startLogin(_ mechanism: any SASLMechanism, _ credentials: Credentials) -> Action {
    guard isSecure || allowsClearText else {
      state = .idle
      return .failed(Failure(.tlsStartTLSMissing, context: "credentials are not sent without TLS"))
    }
    redactor.hide(credentials)
    state = .sasl(mechanism, challenges: 0, cancelled: false)
    if let response = mechanism.initialResponse() {
      let line = "AUTH \(mechanism.name) " + (response.isEmpty ? "=" : SASLBase64.encode(response))
      // RFC 5321 section 4.5.3.1.4: 512 octets for a command line that no extension lengthens.
      if line.utf8.count + 2 <= 512 { return .send(Self.command(line)) }
    }
    return .send(Self.command("AUTH " + mechanism.name))
  }

  mutating func readSASL(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .sasl(var mechanism, let challenges, let cancelled) = state,
      let reply = try reply(&input, limit: SMTPLimits.challengeLineOctets)
    else { return .wait(.answer, step: step) }
    switch reply.code {
    case 334:
      if challenges == Self.challenges || cancelled {
        throw Failure(.protocolLimit, context: "more than \(Self.challenges) challenges in one login")
      }
      let response = try mechanism.respond(to: SASLBase64.decode(reply.lines.first ?? ""))
      state = .sasl(mechanism, challenges: challenges + 1, cancelled: response == nil)
      return .send(Self.command(response.map { SASLBase64.encode($0) } ?? "*"))
    case 200..<300 where !cancelled: return done(.done(words: redactor.clean(reply.words, atLogin: true)))
    default: return refused(reply, at: .authentication)
    }
  }
}
