import PostriderCore

/// Finds what a person named on the command line: by id, address or name.
enum Selection {
  /// Rows in a page when looking through a list.
  static let pageSize = 500
  /// Rows looked through for a name before giving up.
  static let maximumScanned = 20_000

  /// The mailboxes of these ids, addresses or owners' names, each once, in the order given. Throws ``ClientError``.
  static func mailboxes(_ names: [String], _ api: APIClient) async throws -> [Mailbox] {
    var found: [Mailbox] = []
    for name in names {
      let mailbox = try await mailbox(name, api)
      if !found.contains(where: { $0.id == mailbox.id }) { found.append(mailbox) }
    }
    return found
  }

  /// One mailbox. Throws ``ClientError``.
  static func mailbox(_ name: String, _ api: APIClient) async throws -> Mailbox {
    if let id = MailboxID(name) {
      return try await orNotFound("there is no mailbox \(id)") { try await api.get("/mailboxes/\(id)") }
    }
    if name.contains("@") {
      let page: Page<Mailbox> = try await api.get("/mailboxes", [("address", name), ("limit", "1")])
      guard let mailbox = page.items.first else {
        throw ClientError.failed("there is no mailbox with the address \(Terminal.safe(name))")
      }
      return mailbox
    }
    return try unique(
      try await matches("/mailboxes", api) { (mailbox: Mailbox) in isSame(mailbox.owner.name, name) },
      what: "mailbox whose owner is called", name: name, say: { "\($0.id) (\($0.address))" })
  }

  /// One profile, by id or name. Throws ``ClientError``.
  static func profile(_ name: String, _ api: APIClient) async throws -> ServerProfile {
    if let id = ProfileID(name) {
      do {
        return try await api.get("/server-profiles/\(id)")
      } catch ClientError.refused(_, status: 404) {
        // A profile may be called "365".
      }
    }
    return try unique(
      try await matches("/server-profiles", api) { (profile: ServerProfile) in isSame(profile.name, name) },
      what: "profile", name: name, say: { "\($0.id) (\($0.name))" })
  }

  /// One user, by id, address or name. Throws ``ClientError``.
  static func user(_ name: String, _ api: APIClient) async throws -> User { try await person(name, api) }

  /// One shared queue, by id, address or name. Throws ``ClientError``.
  static func sharedQueue(_ name: String, _ api: APIClient) async throws -> SharedQueue {
    try await person(name, api)
  }

  /// One user or shared queue, by id, address or name. Throws ``ClientError``.
  static func person<Somebody: Person>(_ name: String, _ api: APIClient) async throws -> Somebody {
    let (path, what) = (Somebody.path, Somebody.noun)
    if let id = Int64(name), id > 0 {
      return try await orNotFound("there is no \(what) \(id)") { try await api.get("\(path)/\(id)") }
    }
    if name.contains("@") {
      let page: Page<Somebody> = try await api.get(path, [("address", name), ("limit", "1")])
      guard let person = page.items.first else {
        throw ClientError.failed("there is no \(what) with the address \(Terminal.safe(name))")
      }
      return person
    }
    let found: Page<Somebody> = try await list(path, [("text", name)], limit: maximumScanned, api)
    return try unique(
      found.items.filter { isSame($0.name, name) }, what: what, name: name, say: \.address)
  }

  /// Reads a list page by page until `limit` rows.
  static func list<Item: Codable & Sendable>(
    _ path: String, _ query: [(String, String?)], limit: Int, cursor: String? = nil, _ api: APIClient
  ) async throws -> Page<Item> {
    var result = Page<Item>(items: [], nextCursor: cursor, total: 0)
    repeat {
      let size = min(pageSize, limit - result.items.count)
      let page: Page<Item> = try await api.get(
        path, query + [("limit", "\(size)"), ("cursor", result.nextCursor)])
      result.items += page.items
      result.nextCursor = page.nextCursor
      (result.total, result.totalIsEstimate) = (page.total, page.totalIsEstimate)
      if page.items.isEmpty { break }
    } while result.nextCursor != nil && result.items.count < limit
    return result
  }

  private static func matches<Item: Codable & Sendable>(
    _ path: String, _ api: APIClient, _ isMatch: (Item) -> Bool
  ) async throws -> [Item] {
    let page: Page<Item> = try await list(path, [], limit: maximumScanned, api)
    return page.items.filter(isMatch)
  }

  private static func unique<Item>(
    _ items: [Item], what: String, name: String, say: (Item) -> String
  ) throws -> Item {
    guard let first = items.first else {
      throw ClientError.failed("there is no \(what) \(Terminal.safe(name))")
    }
    if items.count > 1 {
      let choices = items.prefix(10).map { Terminal.safe(say($0)) }.joined(separator: ", ")
      throw ClientError.failed("more than one \(what) \(Terminal.safe(name)): \(choices); name one by its id")
    }
    return first
  }

  private static func isSame(_ a: String, _ b: String) -> Bool { a.lowercased() == b.lowercased() }

  /// Replaces the API's "not found" by words that name what was asked for.
  static func orNotFound<Value>(_ words: String, _ body: () async throws -> Value) async throws -> Value {
    do {
      return try await body()
    } catch ClientError.refused(_, status: 404) {
      throw ClientError.failed(words)
    }
  }
}
