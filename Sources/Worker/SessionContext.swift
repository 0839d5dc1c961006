import FoundationEssentials
import Logging
import MailProtocols
import PostriderCore

/// What every session of a worker works with.
struct SessionContext: Sendable {
  let store: any WorkerStore
  let queue: any JobQueue
  let client: MailClient
  let servers: ServerDesk
  let keeper: LeaseKeeper
  let configuration: WorkerConfiguration
  let logger: Logger
  let parser: MessageParser
  /// `nil`: this worker cannot use OAuth.
  let tokens: (any AccessTokenSource)?

  /// The endpoint of one direction of a mailbox.
  func endpoint(_ settings: SessionSettings, _ direction: Direction) -> MailEndpoint {
    let server = settings.server(direction)
    return MailEndpoint(
      kind: direction == .incoming ? .pop3 : .smtp, host: server.host, port: server.port, tls: server.tls,
      caCertificatesPEM: settings.caCertificatesPEM, connectTimeout: settings.connectionTimeout,
      answerTimeout: settings.connectionTimeout, minimumOctetsPerSecond: configuration.minimumOctetsPerSecond)
  }

  /// What a test runs on each direction.
  var check: MailCheck { MailCheck(client: client, heloName: configuration.heloName) }

  /// Opens a POP3 session of a task, up to the login.
  func openPOP3(_ task: SessionTask, trace: SessionTrace) async throws -> POP3Session {
    try await client.openPOP3(endpoint(task.settings, .incoming), trace: trace) { keeper.mayConnect(task.lease) }
  }

  /// Opens an SMTP session of a task, up to the login.
  func openSMTP(_ task: SessionTask, trace: SessionTrace) async throws -> SMTPSession {
    try await client.openSMTP(
      endpoint(task.settings, .outgoing), heloName: configuration.heloName, trace: trace
    ) { keeper.mayConnect(task.lease) }
  }

  /// The credentials of one direction, or why there are none.
  func credentials(_ settings: SessionSettings, _ direction: Direction) throws(Failure) -> Credentials {
    let source = settings.server(direction).credentials
    guard source != .anonymous, source != .integrated || direction == .outgoing else {
      throw Failure(.profileNotSupported, context: "authenticate using \(source.rawValue)")
    }
    guard let credentials = settings.credentials(direction) else {
      switch settings.credentialsProblem {
      case .credentialsAmbiguous?: throw Failure(.credentialsAmbiguous, context: "the user name of \(settings.address)")
      case let problem?:
        let whose = "the password of \(source == .profile ? "the profile" : settings.address)"
        throw Failure(problem, context: settings.credentialsProblemDetail.map { "\(whose): \($0)" } ?? whose)
      case nil:
        throw Failure(.credentialsMissing, scope: source == .profile ? .profile : .mailbox)
      }
    }
    return credentials
  }
}

/// A claimed job on its way through a session.
struct SessionTask: Sendable {
  let lease: Lease
  let assignment: Assignment
  let worker: String
  private let incomingTrace = SessionTrace(direction: .incoming)
  private let outgoingTrace = SessionTrace(direction: .outgoing)
  /// What was done so far. It outlives a session that is ended from outside.
  let progress = SessionProgress()

  init(lease: Lease, assignment: Assignment, worker: String) {
    self.lease = lease
    self.assignment = assignment
    self.worker = worker
  }

  /// The steps of one direction. They outlive a session that is ended from outside.
  func trace(_ direction: Direction) -> SessionTrace { direction == .incoming ? incomingTrace : outgoingTrace }

  var settings: SessionSettings { assignment.settings }

  var writer: SessionGuard {
    SessionGuard(
      job: lease.job, organizationID: settings.organizationID, generation: assignment.generation, fence: lease.fence)
  }

  /// The history row, to be filled in.
  func run(from startedAt: Date, result: RunResult, failure: Failure? = nil) -> RunRecord {
    RunRecord(
      mailboxID: settings.mailboxID, kind: lease.job.kind, trigger: assignment.trigger, worker: worker,
      fence: lease.fence, dueAt: assignment.dueAt, startedAt: startedAt, finishedAt: Date(), result: result,
      failure: failure)
  }
}

extension Failure {
  /// A refused login is the profile's fault where the profile's own account, or the worker's, was used: no mailbox is to
  /// blame for it.
  func scoped(to credentials: CredentialSource) -> Failure {
    guard failureClass == .credential, scope == .mailbox, credentials == .profile || credentials == .integrated else {
      return self
    }
    return Failure(
      code, class: failureClass, scope: .profile, serverWords: serverWords, context: context,
      retryAfterSeconds: retryAfterSeconds)
  }

  /// Sorts whatever ended a session. Interruptions are not failures and must be handled before.
  init(sorting error: any Error) {
    switch error {
    case let failure as Failure: self = failure
    case let spool as SpoolError: self = Failure(.internalError, context: spool.description)
    case let store as StoreError: self = Failure(.messageStore, class: .transient, scope: .mailbox, context: "\(store)")
    default: self = Failure(.internalError, context: String(describing: type(of: error)))
    }
  }
}
