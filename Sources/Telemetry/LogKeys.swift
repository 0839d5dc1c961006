/// The keys of log metadata, spelled once.
///
/// A log line is a constant sentence plus metadata. Values are never secrets: passwords and tokens are not passed to a
/// logger at all.
public enum LogKeys {
  /// The written id of a job: `4711p`.
  public static let jobID = "job.id"
  /// What the job does: `poll`, `send`, `test`.
  public static let jobKind = "job.kind"
  /// How often the job was tried.
  public static let jobAttempt = "job.attempt"
  /// The fence of the lease.
  public static let fence = "job.fence"
  /// A mailbox's number.
  public static let mailboxID = "mailbox.id"
  /// A profile's number.
  public static let profileID = "profile.id"
  /// A run's number.
  public static let runID = "run.id"
  /// A mail server: host and port.
  public static let server = "server"
  /// The tenant's number.
  public static let organizationID = "organization.id"
  /// The number of the person who asked.
  public static let userID = "user.id"
  /// What that person may do.
  public static let role = "user.role"
  /// Which worker.
  public static let workerID = "worker.id"
  /// Who leads, and in which term.
  public static let leaderTerm = "leader.term"
  /// The epoch of the queue.
  public static let epoch = "queue.epoch"
  /// What went wrong, in words that are safe to show.
  public static let error = "error"
  /// A failure's stable code.
  public static let errorCode = "error.code"
  /// A failure's class.
  public static let errorClass = "error.class"
  /// PostgreSQL's code of an error.
  public static let sqlState = "error.sqlstate"
  /// Why.
  public static let reason = "reason"
  /// How many.
  public static let count = "count"
  /// How long, in milliseconds.
  public static let milliseconds = "duration.ms"
  /// A request's id, as in `X-Request-ID`.
  public static let requestID = "request.id"
  /// GET, POST and so on.
  public static let httpMethod = "http.method"
  /// The route's template, without ids and query.
  public static let httpRoute = "http.route"
  /// The status of the answer.
  public static let httpStatus = "http.status"
  /// An address that is listened on.
  public static let address = "net.address"
  /// The address or network that a request came from.
  public static let clientAddress = "net.client"
  /// A file's path.
  public static let file = "file.path"
  /// The path of a private key's file.
  public static let keyFile = "file.key"
  /// A metric's name.
  public static let metric = "metric.name"
  /// A metric's label keys.
  public static let labels = "metric.labels"
  /// A collector's name.
  public static let collector = "metric.collector"
  /// The name of a check of `/readyz`.
  public static let check = "health.check"
}
