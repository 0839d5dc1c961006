import Logging

/// A Kerberos KDC (MIT) of one's own: one realm on a loopback port, principals with random keys, keytabs for them.
public final class PrivateKDC: Sendable {
  /// How to run it.
  public struct Options: Sendable {
    /// Names its folder and log.
    public var name = "kdc"
    /// The realm.
    public var realm = "SANDBOX.TEST"
    /// The domain whose hosts belong to the realm.
    public var domain = "sandbox.test"
    /// How long a start may take.
    public var startTimeout = Duration.seconds(20)

    /// The realm of `sandbox.test`.
    public init() {}
  }

  /// The realm.
  public var realm: String { options.realm }
  /// A `krb5.conf` that knows this realm only, for `KRB5_CONFIG`.
  public let configurationPath: String
  private let options: Options
  private let data: DataDirectory
  private let server: ManagedServer
  private let environment: [String: String]
  private let folder: String
  private let kadmin: String

  private init(
    options: Options, data: DataDirectory, server: ManagedServer, environment: [String: String], folder: String,
    kadmin: String
  ) {
    self.options = options
    self.data = data
    self.server = server
    self.environment = environment
    self.folder = folder
    self.kadmin = kadmin
    configurationPath = folder + "/krb5.conf"
  }

  /// Starts a KDC with an empty realm and waits until it answers.
  public static func start(
    in data: DataDirectory, options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivateKDC {
    let program = try Programs.find("krb5kdc", variable: "POSTRIDER_KDC_BIN", package: "krb5-kdc")
    let utility = try Programs.find("kdb5_util", package: "krb5-kdc")
    let kadmin = try Programs.find("kadmin.local", package: "krb5-admin-server")
    let folder = data.aliased(try data.directory(for: options.name))
    let environment = ["KRB5_CONFIG": folder + "/krb5.conf", "KRB5_KDC_PROFILE": folder + "/kdc.conf"]
    return try await LoopbackPorts.retrying { _ in
      let port = try LoopbackPorts.free(1, host: "127.0.0.1")[0]
      try Files.write(client(options, port: port), to: folder + "/krb5.conf", mode: 0o644, owner: data.user)
      try Files.write(Self.server(options, folder: folder, port: port), to: folder + "/kdc.conf", owner: data.user)
      if !Files.exists(folder + "/stash") {
        try await Command.run(
          utility, ["create", "-s", "-r", options.realm, "-P", "of a throw-away realm"], user: data.user,
          environment: environment)
      }
      let logPath = data.logPath(options.name)
      let server = ManagedServer(name: options.name, logPath: logPath, policy: .never, logger: logger) {
        let offset = Files.status(logPath)?.size ?? 0
        let child = try await ChildProcess.start(
          ChildProcess.Launch(
            name: options.name, program: program, arguments: ["-n"], user: data.user, environment: environment),
          in: data)
        try await ManagedServer.waitUntilReady(
          child, within: options.startTimeout, logPath: logPath, logOffset: offset
        ) { Files.tail(logPath, after: offset).contains { $0.hasSuffix("starting...") } }
        return child
      }
      try await server.start()
      return PrivateKDC(
        options: options, data: data, server: server, environment: environment, folder: folder, kadmin: kadmin)
    }
  }

  /// Makes principals, such as `worker` or `pop/mail.sandbox.test`, and returns the file with their keys, readable by the
  /// servers' user.
  public func keytab(for principals: String...) async throws -> String {
    let names = principals.map { $0.split(separator: "/").joined(separator: "-") }
    let file = "\(folder)/\(names.joined(separator: "+")).keytab"
    for principal in principals {
      guard principal.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "./-_".contains($0)) }) else {
        throw PrivateServerError.invalid("\"\(principal)\" cannot be a principal here")
      }
      for query in ["addprinc -randkey \(principal)", "ktadd -k \(file) \(principal)"] {
        try await Command.run(kadmin, ["-r", realm, "-q", query], user: data.user, environment: environment)
      }
    }
    guard Files.exists(file) else {
      throw PrivateServerError.unusable(path: file, reason: "kadmin.local made no key")
    }
    return file
  }

  /// Ends it.
  public func stop() async { await server.stop() }

  /// Freezes it: questions are taken by the system, and nothing answers.
  public func pause() async { await server.signalFamily(.suspend) }

  /// Ends ``pause()``.
  public func resume() async { await server.signalFamily(.resume) }

  private static func client(_ options: Options, port: Int) -> String {
    """
    [libdefaults]
      default_realm = \(options.realm)
      dns_lookup_kdc = false
      dns_lookup_realm = false
      # A server's name counts as it is written.
      dns_canonicalize_hostname = false
      rdns = false
      udp_preference_limit = 1
    [realms]
      \(options.realm) = {
        kdc = 127.0.0.1:\(port)
      }
    [domain_realm]
      \(options.domain) = \(options.realm)
      .\(options.domain) = \(options.realm)

    """
  }

  private static func server(_ options: Options, folder: String, port: Int) -> String {
    """
    [kdcdefaults]
      kdc_listen = 127.0.0.1:\(port)
      kdc_tcp_listen = 127.0.0.1:\(port)
    [realms]
      \(options.realm) = {
        database_name = \(folder)/principal
        key_stash_file = \(folder)/stash
      }

    """
  }
}
