import PostriderCore

/// What a POP3 session was doing when the server said no.
enum POP3Stage: String, Hashable, Sendable, CaseIterable {
  case greeting
  case capabilities = "CAPA"
  case startTLS = "STLS"
  case authentication = "login"
  case unique = "UIDL"
  case retrieve = "RETR"
  case top = "TOP"
  case delete = "DELE"
  case quit = "QUIT"
}

/// Sorts servers' answers into failures: the rows of the documented tables, and nothing else.
enum AnswerSorting {
  /// Sorts a `-ERR` line. The words have to be redacted already.
  static func failure(_ error: POP3Error, at stage: POP3Stage, words: String, loginDelay: Int? = nil) -> Failure {
    let code = failureCode(error, at: stage)
    let asked = code.defaultClass.isTriedAgain ? RetryHint.seconds(in: error.text) : nil
    return Failure(
      code, serverWords: words, context: "\(stage.rawValue) was refused",
      retryAfterSeconds: asked ?? (code == .pop3LoginDelay ? loginDelay : nil))
  }

  private static func failureCode(_ error: POP3Error, at stage: POP3Stage) -> FailureCode {
    switch stage {
    case .greeting: return .pop3Greeting  // Before a mailbox is named, whatever is wrong is the server's.
    case .startTLS: return .tlsStartTLSMissing
    default: break
    }
    // Only valid where RESP-CODES is offered, but Gmail and Dovecot use them freely; so they always count.
    switch error.code {
    case "IN-USE": return .pop3InUse
    case "LOGIN-DELAY": return .pop3LoginDelay
    case "SYS/TEMP": return .pop3SysTemp
    case "SYS/PERM": return .pop3SysPerm
    case "AUTH": return .authRejected
    case let code? where code == "SYS" || code.hasPrefix("SYS/"): return .pop3SysTemp
    default: break
    }
    let text = error.text.lowercased()
    if text.contains("not enabled for pop") { return .pop3SysPerm }
    if text.contains("bandwidth") || text.contains("excessive usage") { return .pop3Quota }
    if stage == .authentication || stage == .unique {
      if text.contains("in use") { return .pop3InUse }
      // "Account locked" is a person's work, "maildrop locked" another session.
      if text.contains("locked") || text.contains("unable to lock"), !text.contains("account") { return .pop3InUse }
    }
    switch stage {
    case .authentication:
      let known = [
        "username and password not accepted", "application-specific password required", "web login required",
      ]
      return known.contains { text.contains($0) } ? .authRejected : .authRejectedUnspecified
    case .unique: return .pop3NoUIDL
    case .retrieve, .top: return .pop3Retrieve
    default: return .pop3Rejected
    }
  }
}
