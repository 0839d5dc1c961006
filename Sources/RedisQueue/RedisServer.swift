import PostriderCore

/// What a new connection found out about its server, checked.
struct RedisServer: Sendable {
  /// Changes with every start of the server process.
  let runID: String
  /// The SHA-1 of each script, loaded.
  let scripts: [RedisScript: String]

  /// Reads and checks the server behind a connection and loads the scripts.
  ///
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` when it would lose jobs or is too old.
  static func examine(_ connection: RedisConnection) async throws(JobQueueError) -> RedisServer {
    let info = fields(of: try await connection.command(["INFO", "server"]))
    guard let runID = info["run_id"], !runID.isEmpty else {
      throw .misconfigured(reason: "INFO server tells no run_id, so a restart could not be noticed")
    }
    let version = (info["redis_version"] ?? "").split(separator: ".").compactMap { Int($0) }
    guard version.count >= 2, (version[0], version[1]) >= (6, 2) else {
      throw .misconfigured(
        reason: "Redis \(info["redis_version"] ?? "of unknown version") is too old; 6.2 or newer is needed")
    }
    try await checkEviction(connection)
    return RedisServer(runID: runID, scripts: try await loadAll(on: connection))
  }

  /// Loads every script, without waiting for one before sending the next.
  private static func loadAll(on connection: RedisConnection) async throws(JobQueueError) -> [RedisScript: String] {
    let results = await withTaskGroup(of: (RedisScript, Result<String, JobQueueError>).self) { group in
      for script in RedisScript.allCases {
        group.addTask {
          do throws(JobQueueError) { return (script, .success(try await load(script, on: connection))) } catch {
            return (script, .failure(error))
          }
        }
      }
      // Not `reduce(into:)`: an optimized build of Swift 6.3 then crashes in the dictionary's subscript.
      var results: [(RedisScript, Result<String, JobQueueError>)] = []
      for await result in group { results.append(result) }
      return results
    }
    var scripts: [RedisScript: String] = [:]
    for (script, result) in results { scripts[script] = try result.get() }
    return scripts
  }

  static func load(_ script: RedisScript, on connection: RedisConnection) async throws(JobQueueError) -> String {
    let reply = try await connection.command(["SCRIPT", "LOAD", script.source])
    guard let hash = reply.string else { throw .unavailable(reason: "SCRIPT LOAD was answered without a hash") }
    return hash
  }

  private static func checkEviction(_ connection: RedisConnection) async throws(JobQueueError) {
    var policy: String?
    if let pair = try await connection.send(["CONFIG", "GET", "maxmemory-policy"]).array, pair.count == 2 {
      policy = pair[1].string
    } else {
      // Managed servers and restricted users have no CONFIG.
      policy = fields(of: try await connection.command(["INFO", "memory"]))["maxmemory_policy"]
    }
    guard let policy else {
      throw .misconfigured(reason: "neither CONFIG GET nor INFO memory tells maxmemory-policy; it must be noeviction")
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
  private static func fields(of reply: RedisValue) -> [String: String] {
    var fields: [String: String] = [:]
    for line in (reply.string ?? "").split(whereSeparator: \.isNewline) {
      let pair = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      if pair.count == 2 { fields[String(pair[0])] = String(pair[1]) }
    }
    return fields
  }
}
