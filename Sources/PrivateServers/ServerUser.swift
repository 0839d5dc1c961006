#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// The system user that private servers run as.
///
/// PostgreSQL refuses to run as root, and needs a user with an entry in the user database. A supervisor that is root
/// therefore starts its servers as `postgres` where that user exists, as `nobody` otherwise.
public struct ServerUser: Hashable, Sendable {
  /// The login name.
  public let name: String
  /// The user id.
  public let userID: UInt32
  /// The primary group's id.
  public let groupID: UInt32
  /// Every group's id, the primary one included.
  public let groups: [UInt32]

  /// The user to run servers as: an unprivileged one when this process is root, this process's own otherwise.
  ///
  /// Throws ``PrivateServerError/unusable(path:reason:)`` when root finds neither `postgres` nor `nobody`.
  public static func forServers() throws -> ServerUser {
    if geteuid() != 0 {
      return ServerUser(
        name: byID(geteuid()) ?? String(geteuid()), userID: geteuid(), groupID: getegid(), groups: [getegid()])
    }
    if let user = named("postgres") ?? named("nobody") { return user }
    throw PrivateServerError.unusable(
      path: "/etc/passwd", reason: "there is no user postgres or nobody to run the servers as; create one")
  }

  /// The user with a name; `nil` when there is none.
  public static func named(_ name: String) -> ServerUser? {
    var entry = passwd()
    var result: UnsafeMutablePointer<passwd>?
    var buffer = [CChar](repeating: 0, count: 16_384)
    guard getpwnam_r(name, &entry, &buffer, buffer.count, &result) == 0, result != nil else { return nil }
    var count: Int32 = 64
    #if canImport(Darwin)
      var groups = [Int32](repeating: 0, count: Int(count))
      _ = getgrouplist(name, Int32(bitPattern: entry.pw_gid), &groups, &count)
      let found = groups.prefix(Int(max(0, min(count, 64)))).map { UInt32(bitPattern: $0) }
    #else
      var groups = [gid_t](repeating: 0, count: Int(count))
      _ = getgrouplist(name, entry.pw_gid, &groups, &count)
      let found = Array(groups.prefix(Int(max(0, min(count, 64)))))
    #endif
    return ServerUser(name: name, userID: entry.pw_uid, groupID: entry.pw_gid, groups: found)
  }

  /// Whether this is another user than the one this process runs as.
  var isOther: Bool { userID != geteuid() }

  /// The name of a group; `nil` when there is none with this id.
  static func groupName(_ id: UInt32) -> String? {
    var entry = group()
    var result: UnsafeMutablePointer<group>?
    var buffer = [CChar](repeating: 0, count: 65_536)
    guard getgrgid_r(id, &entry, &buffer, buffer.count, &result) == 0, result != nil else { return nil }
    return String(cString: entry.gr_name)
  }

  private static func byID(_ id: uid_t) -> String? {
    var entry = passwd()
    var result: UnsafeMutablePointer<passwd>?
    var buffer = [CChar](repeating: 0, count: 16_384)
    guard getpwuid_r(id, &entry, &buffer, buffer.count, &result) == 0, result != nil else { return nil }
    return String(cString: entry.pw_name)
  }
}
