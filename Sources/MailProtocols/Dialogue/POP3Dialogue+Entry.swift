import NIOCore
import PostriderCore

/// Greeting, capabilities, TLS, login and logout.
extension POP3Dialogue {
  mutating func greeting(_ input: inout LineBuffer) throws(Failure) -> Action {
    if let first = input.first, first == 0x15 || first == 0x16 || first == 0x80 {
      throw Failure(.tlsPortMismatch, context: "the port speaks TLS, the profile expects plain text")
    }
    switch try plainStatus(&input) {
    case nil: return .wait(.greeting, step: step)
    case .success(let text):
      isGreeted = true
      return done(.done(words: "+OK " + text))
    case .failure(let error):
      state = .ended
      return .broken(sorted(error, at: .greeting))
    }
  }

  mutating func readCapabilities(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .capabilities(var lines) = state else { return .wait(.answer, step: step) }
    state = .capabilities(lines: nil)
    if lines == nil {
      switch try plainStatus(&input) {
      case nil: return .wait(.answer, step: step)
      case .failure:
        // CAPA is an extension; a server without it has no others either.
        learn(POP3Capabilities())
        return done(.capabilities(capabilities))
      case .success: lines = []
      }
    }
    var known = lines ?? []
    lines = nil
    while let line = try input.nextLine(limit: POP3Limits.listLineOctets) {
      if line == "." {
        step += 1
        learn(POP3Capabilities(lines: known))
        return done(.capabilities(capabilities))
      }
      if known.count == POP3Limits.capabilityLines {
        throw Failure(.protocolLimit, context: "more than \(POP3Limits.capabilityLines) lines of capabilities")
      }
      known.append(line)
    }
    state = .capabilities(lines: known)
    return .wait(.body, step: step)
  }

  mutating func readStartTLS(_ input: inout LineBuffer) throws(Failure) -> Action {
    switch try plainStatus(&input) {
    case nil: return .wait(.answer, step: step)
    case .failure(let error):
      state = .ended
      return .broken(sorted(error, at: .startTLS))
    case .success:
      // Anything behind the answer came before TLS and would be read as if it came after it (CVE-2021-22947).
      guard input.isEmpty else {
        throw Failure(.tlsStartTLSInjection, context: "\(input.readableOctets) octets behind the answer to STLS")
      }
      state = .handshaking
      return .startTLS
    }
  }

  mutating func startLogin(_ login: POP3Login) -> Action {
    guard isSecure || allowsClearText else {
      state = .idle
      return .failed(Failure(.tlsStartTLSMissing, context: "credentials are not sent without TLS"))
    }
    switch login {
    case .userPass(let credentials):
      redactor.hide(credentials)
      state = .user(credentials)
      return .send(Self.command("USER " + credentials.userName))
    case .sasl(let mechanism, let credentials):
      redactor.hide(credentials)
      state = .sasl(mechanism, challenges: 0, cancelled: false)
      if let response = mechanism.initialResponse() {
        let line = "AUTH \(mechanism.name) " + (response.isEmpty ? "=" : SASLBase64.encode(response))
        // RFC 5034 section 4: the initial response only when the whole line fits.
        if line.utf8.count + 2 <= POP3Limits.commandLineOctets { return .send(Self.command(line)) }
      }
      return .send(Self.command("AUTH " + mechanism.name))
    }
  }

  mutating func readUser(_ input: inout LineBuffer, _ credentials: Credentials) throws(Failure) -> Action {
    switch try plainStatus(&input) {
    case nil: return .wait(.answer, step: step)
    case .failure(let error): return refused(error, at: .authentication)
    case .success:
      // USER and PASS in one segment stalls 40 ms against Dovecot, so PASS waits for the answer.
      state = .pass
      return .send(Self.command("PASS " + credentials.password.revealed))
    }
  }

  mutating func readLogin(_ input: inout LineBuffer) throws(Failure) -> Action {
    switch try plainStatus(&input) {
    case nil: return .wait(.answer, step: step)
    case .failure(let error): return refused(error, at: .authentication)
    case .success(let text): return done(.done(words: redactor.clean("+OK " + text, atLogin: true)))
    }
  }

  mutating func readSASL(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .sasl(var mechanism, let challenges, let cancelled) = state else { return .wait(.answer, step: step) }
    switch try status(&input, limit: POP3Limits.challengeLineOctets) {
    case nil: return .wait(.answer, step: step)
    case .error(let error): return refused(error, at: .authentication)
    case .ok(let text):
      if cancelled { throw Failure(.protocolSyntax, context: "success after a cancelled login") }
      return done(.done(words: redactor.clean("+OK " + text, atLogin: true)))
    case .challenge(let text):
      if challenges == Self.challenges || cancelled {
        throw Failure(.protocolLimit, context: "more than \(Self.challenges) challenges in one login")
      }
      let response = try mechanism.respond(to: SASLBase64.decode(text))
      state = .sasl(mechanism, challenges: challenges + 1, cancelled: response == nil)
      return .send(Self.command(response.map { SASLBase64.encode($0) } ?? "*"))
    }
  }

  mutating func readQuit(_ input: inout LineBuffer) throws(Failure) -> Action {
    switch try plainStatus(&input) {
    case nil: return .wait(.answer, step: step)
    case .failure(let error):
      // RFC 1939 section 6: some of the messages may not have been removed.
      let failure = sorted(error, at: .quit)
      state = .ended
      return .broken(failure)
    case .success(let text):
      state = .ended
      return .done(.done(words: "+OK " + text))
    }
  }
}
