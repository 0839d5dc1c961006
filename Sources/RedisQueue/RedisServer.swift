import PostriderCore

/// What a new connection found out about its server, checked.
struct RedisServer: Sendable {
  /// How the server was found, and so what it must be.
  enum Role: Sendable {
    /// Given by its address.
    case server
    /// Named by Sentinels.
    case sentinelMaster
    /// One node of a Cluster. It may be a replica: it then says where the slot is.
    case clusterNode
  }

  /// Changes with every start of the server process.
  let runID: String
  /// The SHA-1 of each script, loaded.
  let scripts: [RedisScript: String]

  /// The text of the script that an EVALSHA names.
  func source(of command: [String]) -> String? {
    guard command.count > 1, command[0] == "EVALSHA" else { return nil }
    return scripts.first { $0.value == command[1] }?.key.source
  }

  /// Reads and checks the server behind a connection and loads the scripts.
  ///
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` when it would lose jobs or is not what the configuration says.
  static func examine(_ connection: RedisConnection, as role: Role) async throws(JobQueueError) -> RedisServer {
    let runID = try await check(connection, as: role)
    return RedisServer(runID: runID, scripts: try await loadAll(on: connection))
  }

  /// Reads and checks the server; returns its run id.
  @discardableResult
  static func check(_ connection: RedisConnection, as role: Role) async throws(JobQueueError) -> String {
    let info = fields(of: try await connection.command(["INFO"]))
    guard info["loading"] != "1" else {
      let left = info["loading_eta_seconds"].map { "; \($0) s are left by its own estimate" } ?? ""
      throw .unavailable(reason: "the server at \(connection.endpoint) is still loading its data\(left)")
    }
    guard let runID = info["run_id"], !runID.isEmpty else {
      throw .misconfigured(reason: "INFO tells no run_id, so a restart could not be noticed")
    }
    let version = (info["redis_version"] ?? "").split(separator: ".").compactMap { Int($0) }
    guard version.count >= 2, (version[0], version[1]) >= (6, 2) else {
      throw .misconfigured(
        reason: "Redis \(info["redis_version"] ?? "of unknown version") is too old; 6.2 or newer is needed, or Valkey")
    }
    try checkMode(info, at: connection.endpoint, as: role)
    try await checkEviction(info, connection)
    return runID
  }

  /// Loads every script, without waiting for one before sending the next.
  private static func loadAll(on connection: RedisConnection) async throws(JobQueueError) -> [RedisScript: String] {
    // Plain throws inside: an optimized build of Swift 6.3.1 breaks children that return a Result of typed throws here.
    do {
      return try await withThrowingTaskGroup(of: (RedisScript, String).self) { group in
        for script in RedisScript.allCases {
          group.addTask { (script, try await load(script, on: connection)) }
        }
        var scripts: [RedisScript: String] = [:]
        for try await (script, hash) in group { scripts[script] = hash }
        return scripts
      }
    } catch let error as JobQueueError {
      throw error
    } catch {
      throw .unavailable(reason: "loading the scripts failed: \(error)")
    }
  }

  static func load(_ script: RedisScript, on connection: RedisConnection) async throws(JobQueueError) -> String {
    let reply = try await connection.command(["SCRIPT", "LOAD", script.source])
    guard let hash = reply.string else { throw .unavailable(reason: "SCRIPT LOAD was answered without a hash") }
    return hash
  }

  private static func checkMode(
    _ info: [String: String], at endpoint: RedisServerAddress.Endpoint, as role: Role
  ) throws(JobQueueError) {
    let isCluster = info["redis_mode"] == "cluster" || info["cluster_enabled"] == "1"
    let isReplica = info["role"] == "slave"
    switch role {
    case _ where info["redis_mode"] == "sentinel":
      throw .misconfigured(
        reason: "the server at \(endpoint) is a Sentinel; write redis-sentinel://host1,host2,host3/mymaster")
    case .clusterNode where !isCluster:
      throw .misconfigured(reason: "the server at \(endpoint) is not part of a Redis Cluster; write redis:// instead")
    case .server where isCluster, .sentinelMaster where isCluster:
      throw .misconfigured(
        reason: "the server at \(endpoint) is part of a Redis Cluster; write redis-cluster://host1,host2,host3 instead")
    case .server where isReplica:
      throw .misconfigured(
        reason: """
          the server at \(endpoint) is a read-only replica of \(info["master_host"] ?? "another one"); connect to the \
          primary, or write redis-sentinel:// so that it is found
          """)
    case .sentinelMaster where isReplica:
      // Not promoted yet, or demoted since: the Sentinels will agree in a moment.
      throw .unavailable(reason: "the server at \(endpoint), which a Sentinel names, is a replica")
    default: break
    }
  }

  private static func checkEviction(
    _ info: [String: String], _ connection: RedisConnection
  ) async throws(JobQueueError) {
    var policy = info["maxmemory_policy"]
    if policy == nil, let pair = try await connection.send(["CONFIG", "GET", "maxmemory-policy"]).array, pair.count == 2
    {
      policy = pair[1].string
    }
    guard let policy else {
      throw .misconfigured(reason: "neither INFO nor CONFIG GET tells maxmemory-policy; it must be noeviction")
    }
    guard policy == "noeviction" else {
      throw .misconfigured(
        reason: """
          maxmemory-policy is \(policy), which drops jobs when memory is full; set `maxmemory-policy noeviction` in \
          redis.conf or run `redis-cli CONFIG SET maxmemory-policy noeviction`
          """)
    }
  }

  /// The `name:value` lines of INFO.
  static func fields(of reply: RedisValue) -> [String: String] {
    var fields: [String: String] = [:]
    for line in (reply.string ?? "").split(whereSeparator: \.isNewline) {
      let pair = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      if pair.count == 2 { fields[String(pair[0])] = String(pair[1]) }
    }
    return fields
  }
}
