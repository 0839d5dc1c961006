/// How a worker process works.
public struct WorkerConfiguration: Sendable {
  /// Names this process in leases and runs; unique per process.
  public var name: String
  /// Sessions at once, 1…10,000.
  public var sessions = 64
  /// Jobs asked for at once.
  public var claimBatch = 32
  /// How often leases are renewed; a third of the lease.
  public var renewal: Duration = .seconds(5)
  /// How often the worker says that it lives.
  public var announcement: Duration = .seconds(5)
  /// How long running sessions may go on after a stop was asked for.
  public var grace: Duration = .seconds(25)
  /// How long an idle worker sleeps before it looks by itself.
  public var idleWait: Duration = .seconds(1)
  /// Names the address that this worker's connections come from: workers with the same name share the login budgets.
  public var egressID = "default"
  /// The name given in EHLO; a fully qualified name where there is one.
  public var heloName = "localhost"
  /// Where messages above ``memoryOctets`` wait on disk while they arrive.
  public var spoolDirectory = "/tmp"
  /// Larger messages go to a spool file.
  public var memoryOctets = 262_144
  /// Messages of one transaction: at most so many …
  public var batchMessages = 50
  /// … and at most so many octets, unless a single one is larger.
  public var batchOctets: Int64 = 1_048_576
  /// How long a test waits for its own message to come back over POP3, at most 10 s of a test that nobody waits for; zero
  /// not to look for it.
  public var roundTripWait: Duration = .zero
  /// Octets of messages after which a session asks for no further one; the rest comes in the next session, for which the
  /// mailbox queues again behind others. 1 and up.
  public var octetsPerPoll: Int64 = 1 << 30
  /// Whether the newest messages of a mailbox are fetched first.
  public var newestFirst = false
  /// Bodies that arrive slower are given up, octets per second.
  public var minimumOctetsPerSecond = 256

  /// The defaults of a deployment.
  public init(name: String) { self.name = name }
}
