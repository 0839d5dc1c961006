import PostriderCore

/// A TCP address to listen on.
public struct TCPListener: Hashable, Sendable {
  /// A host name or literal address of this machine.
  public var host: String
  /// 0…65,535; 0 lets the system choose.
  public var port: Int
  /// Certificate and key files; `nil` for plain HTTP.
  public var tls: TLSFiles?

  /// An address to listen on.
  public init(host: String = "127.0.0.1", port: Int, tls: TLSFiles? = nil) {
    self.host = host
    self.port = port
    self.tls = tls
  }
}

/// Where a listener's certificate is.
public struct TLSFiles: Hashable, Sendable {
  /// A PEM file with the certificate and those that signed it.
  public var certificateChain: String
  /// A PEM file with the private key.
  public var privateKey: String

  /// Names the files.
  public init(certificateChain: String, privateKey: String) {
    self.certificateChain = certificateChain
    self.privateKey = privateKey
  }
}

/// How the API is served.
public struct AdminServerConfiguration: Sendable {
  /// A TCP listener; `nil` for none.
  public var tcp: TCPListener?
  /// The path of a Unix socket, readable by this user only; `nil` for none.
  public var unixSocket: String?
  /// The deployment property of that name: accepts passwords over plain HTTP. Default off.
  public var allowsCredentialsEntryViaNonSecureChannels = false
  /// The deployment property `allowNonTLSMail`: profiles may use no TLS. Default off.
  public var allowsNonTLSMail = false
  /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto: https` are believed.
  public var trustedProxies: [AddressRange] = []
  /// How often the files of the certificate are looked at; changed ones serve the connections that begin afterwards.
  public var certificateInterval: Duration = .seconds(60)
  /// How long a request may take, from its head to the beginning of the answer.
  public var requestTimeout: Duration = .seconds(30)
  /// The largest request body, in octets.
  public var maximumBodyOctets = 1 << 20
  /// The largest JSON body of a message with files, in octets. It lies in memory, in base64; larger files go with a
  /// message that is sent as it stands.
  public var maximumFilesOctets = 8 << 20
  /// The largest message that is sent as it stands (`message/rfc822`), in octets.
  public var maximumMessageOctets: Int64 = 50 << 20
  /// How long such a message may take to arrive and be stored.
  public var messageTimeout: Duration = .seconds(600)
  /// How long one stream of events lasts; below ``idleTimeout``. Its client connects again and misses nothing.
  public var eventStreamDuration: Duration = .seconds(90)
  /// How often a stream of events looks for news.
  public var eventInterval: Duration = .milliseconds(500)
  /// Where large messages wait while they arrive.
  public var spoolDirectory = "/tmp"
  /// The most connections per listener; more wait in the backlog.
  public var maximumConnections = 1_024
  /// A connection on which nothing happens for so long is closed.
  public var idleTimeout: Duration = .seconds(120)
  /// How long requests in flight may go on after the server was told to stop.
  public var shutdownGrace: Duration = .seconds(10)
  /// How long a token's principal is remembered, to spare PostgreSQL; a revoked token works that much longer.
  public var tokenLifetime: Duration = .seconds(5)
  /// How long the numbers of `/queue/stats` and the queue's gauges are remembered.
  public var statisticsLifetime: Duration = .seconds(2)
  /// How `/scale` counts the workers wanted.
  public var scale = ScaleRule()
  /// How long the answer of `/readyz` is remembered.
  public var readinessLifetime: Duration = .seconds(1)
  /// How long people stay signed in.
  public var sessionLife = SessionLife()
  /// What a stored password costs to check.
  var passwordCost = PasswordCost()
  /// How often each client may try to sign in.
  var signInLimit = SignInLimiter.Limit()
  /// Shown by `GET /`.
  public var version = "0.0.0"

  /// Serves on the given listeners, with defaults for the rest.
  public init(tcp: TCPListener? = nil, unixSocket: String? = nil) {
    self.tcp = tcp
    self.unixSocket = unixSocket
  }
}
