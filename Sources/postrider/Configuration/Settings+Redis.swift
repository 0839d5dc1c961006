import PostriderCore
import RedisQueue

extension Settings {
  /// Where the queue is. Reads the files of certificates that are named.
  ///
  /// - Throws: ``Settings/Problems`` when the URL is wrong or does not fit the settings beside it.
  func queueConfiguration() throws -> RedisQueueConfiguration {
    let url = try required(.redisURL)
    do throws(JobQueueError) {
      return try RedisQueueConfiguration(
        url: url,
        credentials: RedisQueueConfiguration.Credentials(
          user: text(.redisUser), password: text(.redisPassword).map { Secret($0) },
          sentinelUser: text(.redisSentinelUser), sentinelPassword: text(.redisSentinelPassword).map { Secret($0) }),
        tls: RedisTLSSettings(
          caFile: text(.redisCAFile), certificateFile: text(.redisCertificateFile), keyFile: text(.redisKeyFile),
          serverName: text(.redisServerName)),
        shards: number(.queueShards), leaseDuration: .seconds(number(.queueLease)))
    } catch {
      guard case .misconfigured(let reason) = error else { throw error }
      throw Problems(lines: ["POSTRIDER_REDIS_URL and the settings beside it: \(reason)"])
    }
  }
}
