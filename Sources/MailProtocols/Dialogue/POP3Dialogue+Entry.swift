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

  mutating func startLogin(_ login: POP3Login) throws(Failure) -> Action {
    guard isSecure || allowsClearText else {
      state = .idle
      return .failed(Failure(.tlsStartTLSMissing, context: "credentials are not sent without TLS"))
    }
    switch login {
    case .userPass(let userName, let password):
      redactor.hide(Credentials(userName: userName, password: password))
      state = .user(password)
      return .send(Self.command("USER " + userName))
    case .sasl(let mechanism, let credentials):
      redactor.hide(credentials)
      // RFC 5034 section 4: the first message goes with the command only when the whole line fits.
      var exchange = SASLExchange(mechanism, commandLimit: POP3Limits.commandLineOctets)
      let move = try exchange.begin()
      return carryOut(move, exchange)
    }
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

  mutating func readUser(_ input: inout LineBuffer, _ password: Secret) throws(Failure) -> Action {
    switch try plainStatus(&input) {
    case nil: return .wait(.answer, step: step)
    case .failure(let error): return refused(error, at: .authentication)
    case .success:
      try requireQuiet(input)
      // USER and PASS in one segment stalls 40 ms against Dovecot, so PASS waits for the answer.
      state = .pass
      return .send(Self.command("PASS " + password.revealed))
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
    guard case .sasl(var exchange) = state else { return .wait(.answer, step: step) }
    switch try status(&input, limit: POP3Limits.challengeLineOctets) {
    case nil: return .wait(.answer, step: step)
    case .error(let error):
      state = .idle
      let redactor = redactor
      return .failed(exchange.refused(sorted(error, at: .authentication)) { redactor.clean($0, atLogin: true) })
    case .ok(let text):
      try exchange.succeeded()
      return done(.done(words: redactor.clean("+OK " + text, atLogin: true)))
    case .challenge(let text):
      try requireQuiet(input)
      let move = try exchange.challenge(text)
      return carryOut(move, exchange)
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
