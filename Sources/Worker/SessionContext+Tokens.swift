import FoundationEssentials
import MailProtocols
import PostriderCore

extension SessionContext {
  /// Runs what logs in to one direction's server with its credentials.
  ///
  /// With OAuth the token is got first, refreshed when it is old. A token that the server refuses is replaced once, by one
  /// refresh for all who hold it, and the login tried again over a new connection; never a password in its place. One that
  /// was new is not replaced.
  func signingIn<Result>(
    _ task: SessionTask, _ direction: Direction, _ body: (Credentials) async throws -> Result
  ) async throws -> Result {
    guard task.settings.server(direction).credentials == .oauth else {
      return try await body(try credentials(task.settings, direction))
    }
    let token = try await accessToken(task, direction)
    do {
      return try await body(credentials(task, token))
    } catch let refusal as Failure where refusal.isRefusedToken && !token.isNew {
      // What a refresh meets is the answer then: a busy token server disables nobody.
      guard let next = try await renewed(task, direction, token) else { throw refusal }
      return try await body(credentials(task, next))
    }
  }

  /// Opens a POP3 session and logs in to the mailbox.
  func signInPOP3(_ task: SessionTask, trace: SessionTrace) async throws -> POP3Session {
    try await signingIn(task, .incoming) { credentials in
      let session = try await openPOP3(task, trace: trace)
      try await session.whileOpen {
        try await servers.login(task, .incoming) {
          try await session.authenticate(credentials, mechanism: task.settings.incoming.mechanism)
        }
      }
      return session
    }
  }

  private func credentials(_ task: SessionTask, _ token: AccessToken) -> Credentials {
    Credentials(userName: task.settings.loginName, accessToken: token.secret)
  }

  private func accessToken(_ task: SessionTask, _ direction: Direction) async throws -> AccessToken {
    guard let token = try await renewed(task, direction, nil) else { throw Failure(.oauthGrantExpired) }
    guard !token.isNew, servers.isProbeOfHalt(task, direction) else { return token }
    // A token from before the halt shows nothing of the application, which may be what halted the profile.
    do {
      return try await renewed(task, direction, token) ?? token
    } catch let failure as Failure where failure.code != .oauthClient && failure.code != .oauthNotConfigured {
      return token
    }
  }

  private func renewed(
    _ task: SessionTask, _ direction: Direction, _ refused: AccessToken?
  ) async throws -> AccessToken? {
    guard let tokens else { throw Failure(.profileNotSupported, context: "this worker gets no OAuth tokens") }
    let startedAt = Date()
    let began = ContinuousClock.now
    func record(_ tried: String, _ result: StepResult, _ failure: Failure? = nil) {
      task.trace(direction).record(
        TraceStep(
          direction: direction, name: .token, tried: tried, result: result, startedAt: startedAt,
          milliseconds: (ContinuousClock.now - began) / .milliseconds(1), serverWords: failure?.serverWords,
          code: failure?.code))
    }
    do {
      let token = try await tokens.accessToken(of: task.settings.mailboxID, refused: refused)
      let what =
        token.map { $0.isNew ? "a new access token from the provider" : "the stored access token" }
        ?? "another access token: there is nothing to get one with"
      record(what, token == nil ? .failed : .ok)
      return token
    } catch let refusal as Failure {
      let failure = await servers.weighed(token: refusal, task, direction)
      record("an access token" + (failure.context.map { ": \($0)" } ?? ""), .failed, failure)
      throw failure
    }
  }
}

extension Failure {
  /// Whether a mail server refused a login in a way that a fresh token may mend; a missing right it does not.
  var isRefusedToken: Bool {
    failureClass == .credential && scope == .mailbox
      && ![.oauthScope, .oauthReplaced, .oauthGrantExpired].contains(code)
  }
}
