import FoundationEssentials
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Where the API is and the token for it, and where both came from.
struct ClientSettings: Sendable {
  var url: String
  /// Empty where there is none yet, for signing in.
  var token: Secret
  /// "--api-url", "POSTRIDER_API_URL" or the path of a file.
  var source: String
  var warnings: [String] = []

  /// Looks at the options, the environment, the session of `postrider login` and the file of a running `postrider dev`,
  /// in this order.
  ///
  /// A token from a file is only used for that file's own address, so that naming another server never sends it there.
  /// Throws ``ClientError``.
  static func find(
    _ options: ClientOptions, environment: [String: String] = ProcessInfo.processInfo.environment
  ) throws -> ClientSettings {
    var tried: [String] = []
    var warnings: [String] = []
    var named = options.apiURL ?? nonempty(environment["POSTRIDER_API_URL"])
    var source = options.apiURL != nil ? "--api-url" : "POSTRIDER_API_URL"
    if named == nil { tried += ["--api-url: not given", "POSTRIDER_API_URL: not set"] }
    let session = SessionFile.path(environment).flatMap { SessionFile.read($0, &warnings) }
    if named == nil && session == nil { tried.append("postrider login: nobody is signed in") }
    if let session, named == nil, nonempty(environment["POSTRIDER_CLI_ENV"]) == nil {
      named = session.url
      source = "postrider login"
    }

    let path = nonempty(environment["POSTRIDER_CLI_ENV"]) ?? "\(dataDirectory(environment))/cli.env"
    let file = try readEnvironmentFile(path, &warnings)
    let fileURL = file.flatMap { nonempty($0["POSTRIDER_API_URL"]) }
    if named == nil {
      if fileURL == nil {
        tried.append("\(path): \(file == nil ? "there is no such file" : "holds no POSTRIDER_API_URL")")
      }
      source = path
    }
    guard let url = named ?? fileURL else {
      throw ClientError.unreachable(reason: "its address is not known", tried: tried)
    }
    let base = try normalized(url)
    var token = try ownToken(options, environment)
    if token == nil, let session, session.url == base { token = try session.usable(now: Date()) }
    if token == nil, let fileURL, (try? normalized(fileURL)) == base {
      token = file.flatMap { nonempty($0["POSTRIDER_TOKEN"]) }
    }
    guard let token else {
      throw ClientError.usage(
        "there is no token for \(base): sign in with `postrider login --api-url \(base)`, or give one with "
          + "POSTRIDER_TOKEN, POSTRIDER_TOKEN_FILE or --token-file" + warnings.map { "\n\($0)" }.joined())
    }
    guard token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw ClientError.usage("the token holds blanks or characters that cannot be in a token")
    }
    return ClientSettings(url: base, token: Secret(token), source: source, warnings: warnings)
  }

  /// `/var/lib/postrider` for root, else the user's state directory; `POSTRIDER_DATA` overrides both.
  static func dataDirectory(_ environment: [String: String]) -> String {
    if let named = nonempty(environment["POSTRIDER_DATA"]) { return named }
    if geteuid() == 0 { return "/var/lib/postrider" }
    if let state = nonempty(environment["XDG_STATE_HOME"]) { return "\(state)/postrider" }
    return "\(environment["HOME"] ?? ".")/.local/state/postrider"
  }

  private static func ownToken(_ options: ClientOptions, _ environment: [String: String]) throws -> String? {
    if let token = options.token { return token }
    if let path = options.tokenFile { return try SecretFile.read(path, what: "the token file") }
    if let token = nonempty(environment["POSTRIDER_TOKEN"]) { return token }
    if let path = nonempty(environment["POSTRIDER_TOKEN_FILE"]) {
      return try SecretFile.read(path, what: "the token file")
    }
    return nil
  }

  /// Checks the scheme and takes off a trailing slash or `/api/v1`, which the client adds itself.
  static func normalized(_ url: String) throws -> String {
    let schemes = ["http://", "https://", "http+unix://", "https+unix://"]
    let lower = url.lowercased()
    guard let scheme = schemes.first(where: { lower.hasPrefix($0) }), lower.count > scheme.count,
      url.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
    else {
      throw ClientError.usage(
        "the API URL \(Terminal.safe(url)) must begin with http://, https:// or http+unix://, for a socket as in "
          + "http+unix://%2Frun%2Fpostrider%2Fapi.sock")
    }
    var base = url
    while base.hasSuffix("/") { base.removeLast() }
    if base.hasSuffix("/api/v1") { base.removeLast("/api/v1".count) }
    return base
  }

  static func nonempty(_ text: String?) -> String? { text?.isEmpty == false ? text : nil }

  /// Reads lines `KEY=value` or `KEY='value'`; blank lines and lines with `#` are skipped. `nil` when there is no such file.
  private static func readEnvironmentFile(_ path: String, _ warnings: inout [String]) throws -> [String: String]? {
    guard FileManager.default.fileExists(atPath: path) else { return nil }
    guard let data = FileManager.default.contents(atPath: path), data.count <= 65_536 else {
      throw ClientError.failed("\(path) cannot be read: check who owns it")
    }
    if let mode = SecretFile.mode(path), mode & 0o077 != 0 {
      warnings.append("Warning: others can read \(path), which holds a token: chmod 600 \(path)")
    }
    return EnvironmentFile.variables(String(decoding: data, as: UTF8.self))
  }
}

/// Files that hold one secret.
enum SecretFile {
  /// The file's text without one line end; at most 4 KiB. Throws ``ClientError``.
  static func read(_ path: String, what: String) throws -> String {
    guard let data = FileManager.default.contents(atPath: path) else {
      throw ClientError.failed("\(what) \(Terminal.safe(path)) cannot be read")
    }
    return try text([UInt8](data), what: what)
  }

  /// The octets as text without one line end. Throws ``ClientError`` for more than 4 KiB, bad UTF-8 or nothing.
  static func text(_ bytes: [UInt8], what: String) throws -> String {
    var bytes = bytes
    if bytes.last == 0x0A { bytes.removeLast() }
    if bytes.last == 0x0D { bytes.removeLast() }
    guard bytes.count <= 4_096, let text = String(validating: bytes, as: UTF8.self) else {
      throw ClientError.failed("\(what) must be text of at most 4,096 octets")
    }
    guard !text.isEmpty else { throw ClientError.failed("\(what) is empty") }
    return text
  }

  /// The permission bits; `nil` when the file cannot be looked at.
  static func mode(_ path: String) -> UInt32? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    return UInt32(status.st_mode) & 0o777
  }
}
