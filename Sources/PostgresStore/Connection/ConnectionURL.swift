import CLibPQ
import PostriderCore

/// A libpq connection URI (`postgresql://user:password@host:5432/name?sslmode=verify-full`, or
/// `postgresql:///name?host=/socket/folder`), several hosts included.
struct ConnectionURL: Sendable, CustomStringConvertible {
  /// The URI; may hold a password.
  let secret: Secret

  init(_ text: String) { secret = Secret(text) }

  /// Never the URI itself: it may hold a password.
  var description: String { "«database URL»" }

  /// libpq's parameters: our defaults first, so that the URI overrides them.
  ///
  /// Keepalives find a dead peer within about 25 seconds even where a statement just waits.
  func parameters(application: String, connectTimeout: Duration) -> [(String, String)] {
    [
      ("connect_timeout", String(max(2, connectTimeout.components.seconds))), ("keepalives", "1"),
      ("keepalives_idle", "10"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
      ("tcp_user_timeout", "25000"), ("fallback_application_name", application), ("dbname", secret.revealed),
      ("client_encoding", "UTF8"),
    ]
  }

  /// Throws ``StoreError/unavailable(reason:)`` for anything but a URI, without repeating it: libpq's own messages quote
  /// what they do not understand, and that may be the password.
  func check() throws(StoreError) { PQconninfoFree(try parsed()) }

  private func parsed() throws(StoreError) -> UnsafeMutablePointer<PQconninfoOption> {
    let text = secret.revealed
    guard text.hasPrefix("postgresql://") || text.hasPrefix("postgres://"), let options = PQconninfoParse(text, nil)
    else {
      throw .unavailable(reason: "the database URL is not one that libpq understands (postgresql://…)")
    }
    return options
  }

  /// The user that the URI logs in as: the one it names, else libpq's default.
  func userName() throws(StoreError) -> String? {
    if let user = try value("user") { return user }
    guard let defaults = PQconndefaults() else { return nil }
    defer { PQconninfoFree(defaults) }
    return Self.value("user", in: defaults)
  }

  /// The password that the URI holds, decoded; `nil` when it holds none.
  func password() throws(StoreError) -> Secret? { try value("password").map { Secret($0) } }

  /// What the URI itself says about a keyword of libpq.
  private func value(_ keyword: String) throws(StoreError) -> String? {
    let options = try parsed()
    defer { PQconninfoFree(options) }
    return Self.value(keyword, in: options)
  }

  private static func value(_ keyword: String, in options: UnsafeMutablePointer<PQconninfoOption>) -> String? {
    var option = options
    while let name = option.pointee.keyword {
      if String(cString: name) == keyword, let value = option.pointee.val { return String(cString: value) }
      option += 1
    }
    return nil
  }
}
