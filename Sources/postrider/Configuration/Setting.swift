/// One configuration key: how it is called, what it means, what it may be.
///
/// The table ``Setting/all`` is the only place where keys are named; `postrider config list` prints it.
struct Setting: Sendable {
  /// What the value is.
  enum Kind: Sendable {
    case text
    case url(schemes: [String])
    case number(ClosedRange<Int>)
    case flag
    case choice([String])
    case list
    /// Addresses and networks (CIDR), separated by commas.
    case networks
    case path
    /// `part=level,…`, see ``LogPart``.
    case levels
  }

  /// The dotted key in a file: `database.url`. In the environment `POSTRIDER_DATABASE_URL`.
  let key: String
  let kind: Kind
  /// The default as text; `nil` when there is none.
  let fallback: String?
  /// Never printed; may also come from a file named by `…_FILE`.
  let isSecret: Bool
  let help: String

  init(_ key: String, _ kind: Kind, _ fallback: String?, secret: Bool = false, _ help: String) {
    self.key = key
    self.kind = kind
    self.fallback = fallback
    isSecret = secret
    self.help = help
  }

  /// `POSTRIDER_DATABASE_DIRECT_URL` for `database.directUrl`.
  var environmentName: String {
    var name = "POSTRIDER_"
    for character in key {
      if character == "." {
        name += "_"
      } else if character.isUppercase {
        name += "_\(character)"
      } else {
        name += character.uppercased()
      }
    }
    return name
  }

  /// What may stand there, for people.
  var range: String {
    switch kind {
    case .text: "text"
    case .url(let schemes): schemes.map { "\($0)://…" }.joined(separator: ", ")
    case .number(let range): "\(range.lowerBound)…\(range.upperBound)"
    case .flag: "true, false"
    case .choice(let words): words.joined(separator: ", ")
    case .list: "comma-separated list"
    case .networks: "comma-separated addresses and networks (CIDR)"
    case .path: "path"
    case .levels: "part=level,…; parts: \(LogPart.allCases.map(\.rawValue).joined(separator: ", "))"
    }
  }

  static let databaseURL = Setting(
    "database.url", .url(schemes: ["postgresql", "postgres"]), nil, secret: true,
    "PostgreSQL as a libpq URI; may lead through a transaction pooler.")
  static let databaseDirectURL = Setting(
    "database.directUrl", .url(schemes: ["postgresql", "postgres"]), nil, secret: true,
    "PostgreSQL without a pooler, for LISTEN; database.url when left out.")
  static let databaseMigrateURL = Setting(
    "database.migrateUrl", .url(schemes: ["postgresql", "postgres"]), nil, secret: true,
    "PostgreSQL as the owner of the schema, for `migrate` and `init`; database.url when left out.")
  static let databasePool = Setting("database.poolSize", .number(1...100), "4", "Connections of this process.")
  static let redisURL = Setting(
    "redis.url",
    .url(
      schemes: [
        "redis", "rediss", "unix", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster", "valkey",
        "valkeys", "valkey-sentinel", "valkeys-sentinel", "valkey-cluster", "valkeys-cluster",
      ]), nil, secret: true,
    """
    Redis or Valkey, rediss for TLS: redis://[user:password@]host:port/db, unix:///path/to.sock?db=0, \
    redis-sentinel://host1:26379,host2,host3/mymaster or redis-cluster://host1:6379,host2,host3.
    """)
  static let redisUser = Setting(
    "redis.user", .text, nil, "The ACL user of the Redis servers, when the URL names none; needs a password.")
  static let redisPassword = Setting(
    "redis.password", .text, nil, secret: true, "The password of the Redis servers, when the URL holds none.")
  static let redisSentinelUser = Setting(
    "redis.sentinel.user", .text, nil, "The ACL user of the Sentinels; the servers' is not used for them.")
  static let redisSentinelPassword = Setting(
    "redis.sentinel.password", .text, nil, secret: true, "The password of the Sentinels.")
  static let redisCAFile = Setting(
    "redis.tls.caFile", .path, nil,
    "Certificates (PEM) that Redis servers are verified with; the system's when left out.")
  static let redisCertificateFile = Setting(
    "redis.tls.certificateFile", .path, nil, "The client certificate with its chain (PEM), where Redis wants one.")
  static let redisKeyFile = Setting(
    "redis.tls.keyFile", .path, nil, "The private key of the client certificate (PEM, not encrypted).")
  static let redisServerName = Setting(
    "redis.tls.serverName", .text, nil,
    "The name in every Redis server's certificate, when they are reached by other names or addresses.")
  static let queueLease = Setting(
    "queue.leaseSeconds", .number(2...600), "15",
    "How long a dead worker's jobs stay taken; the same in every process.")
  static let queueShards = Setting(
    "queue.shards", .number(1...64), "1",
    "Parts of the queue, spread over the nodes of a Redis Cluster; fixed once the queue is in use, the same everywhere."
  )
  static let keysRing = Setting(
    "keys.ring", .text, nil, secret: true, "The key ring itself: lines `id: base64(32 octets)`, first encrypts.")
  static let keysFile = Setting(
    "keys.file", .path, nil, "A file with the key ring; `postrider keys generate` makes one.")
  static let egressAllow = Setting(
    "egress.allow", .list, "",
    "Networks that mail may go to although the policy denies them: CIDR, CIDR:port or CIDR:*.")
  static let egressPorts = Setting(
    "egress.ports", .text, "default",
    "Ports that mail may go to: default (110, 995, 25, 465, 587), us-government (80, 443, 465, 995), or a list.")
  static let egressID = Setting(
    "egress.id", .text, "default",
    "Names the address that this worker's connections come from; workers with the same one share the login budgets.")
  static let allowsNonTLS = Setting(
    "mail.allowNonTls", .flag, "false", "Whether profiles may use TLS mode `none` (allowNonTLSMail).")
  static let apiHost = Setting("api.host", .text, "127.0.0.1", "Address the API listens on.")
  static let apiPort = Setting("api.port", .number(0...65_535), "8080", "Port the API listens on; 0 takes a free one.")
  static let apiSocket = Setting("api.socket", .path, nil, "Unix socket the API listens on too (mode 0600).")
  static let apiCertificateFile = Setting(
    "api.tls.certificateFile", .path, nil,
    "The API's certificate with its chain (PEM): TLS on api.port. Read anew when it changes, and at SIGHUP.")
  static let apiKeyFile = Setting(
    "api.tls.keyFile", .path, nil, "The private key of the API's certificate (PEM, not encrypted).")
  static let apiTrustedProxies = Setting(
    "api.trustedProxies", .networks, "",
    "Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or networks, such as 10.0.0.0/8.")
  static let apiPublicURL = Setting(
    "api.publicUrl", .url(schemes: ["https", "http"]), nil,
    "Where browsers reach this API, for consents: https://mail.example.com; http://127.0.0.1 and api.port when left out."
  )
  static let allowsInsecureCredentials = Setting(
    "api.allowCredentialsEntryViaNonSecureChannels", .flag, "false",
    "Whether passwords may be entered over plain HTTP.")
  static let apiMaximumMessage = Setting(
    "api.maximumMessageMiB", .number(1...1_024), "50", "The largest message that is submitted as it stands, in MiB.")
  static let apiSpool = Setting("api.spool", .path, "/tmp", "Where large messages wait while they are submitted.")
  static let scaleTarget = Setting(
    "scale.targetSeconds", .number(1...3_600), "10",
    "How fast GET /api/v1/scale wants waiting jobs to be worked off.")
  static let scaleSlots = Setting(
    "scale.slotsPerWorker", .number(0...10_000), "0",
    "Sessions of one worker for GET /api/v1/scale; 0: as the workers announce, before any did worker.sessions.")
  static let probeHost = Setting("probe.host", .text, "127.0.0.1", "Address of /healthz, /readyz and /metrics.")
  static let probePort = Setting(
    "probe.port", .number(0...65_535), "9464", "Port of /healthz, /readyz and /metrics; 0 takes a free one.")
  static let workerSessions = Setting("worker.sessions", .number(1...10_000), "64", "Sessions of one worker at once.")
  static let workerGrace = Setting(
    "worker.graceSeconds", .number(0...3_600), "25", "How long sessions may go on after SIGTERM.")
  static let workerHelo = Setting("worker.helo", .text, nil, "The name given in EHLO; the host's name when left out.")
  static let workerRoundTrip = Setting(
    "worker.roundTripSeconds", .number(0...300), "30",
    "How long test & enable waits for its own message to come back over POP3; 0 not to look for it.")
  static let workerSpool = Setting("worker.spool", .path, "/tmp", "Where large messages wait while they arrive.")
  static let workerOctetsPerPoll = Setting(
    "worker.mebibytesPerPoll", .number(1...1_048_576), "1024",
    "After so many MiB a session fetches no further message; the mailbox queues again behind others.")
  static let workerNewestFirst = Setting(
    "worker.newestFirst", .flag, "false", "Whether the newest messages of a mailbox are fetched first.")
  static let logLevel = Setting(
    "log.level", .choice(["trace", "debug", "info", "notice", "warning", "error"]), "info", "What is logged.")
  static let logLevels = Setting(
    "log.levels", .levels, nil, "Other levels of single parts of a process: store=debug,queue=warning.")
  static let logFormat = Setting("log.format", .choice(["text", "json"]), "text", "How it is logged.")

  static let all = [
    databaseURL, databaseDirectURL, databaseMigrateURL, databasePool, redisURL, redisUser, redisPassword,
    redisSentinelUser, redisSentinelPassword, redisCAFile, redisCertificateFile, redisKeyFile, redisServerName,
    queueLease, queueShards, keysRing, keysFile, egressAllow, egressPorts, egressID, allowsNonTLS, apiHost, apiPort,
    apiSocket, apiCertificateFile, apiKeyFile, apiTrustedProxies, apiPublicURL, apiMaximumMessage, apiSpool,
    allowsInsecureCredentials, scaleTarget, scaleSlots, probeHost,
    probePort, workerSessions, workerGrace, workerHelo, workerRoundTrip, workerSpool, workerOctetsPerPoll,
    workerNewestFirst, logLevel, logLevels, logFormat,
  ]
}
