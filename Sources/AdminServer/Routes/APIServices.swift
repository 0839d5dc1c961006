import PostriderCore
import Synchronization
import Telemetry

/// What the handlers of the API work with.
struct APIServices: Sendable {
  let configuration: AdminServerConfiguration
  let store: any AdminStore
  let queue: any JobQueue
  let statistics: QueueCollector
  let tokens: PrincipalCache
  let schedules: ScheduleCache
  let profileRules: ProfileRules

  init(
    _ configuration: AdminServerConfiguration, store: any AdminStore, queue: any JobQueue, statistics: QueueCollector
  ) {
    self.configuration = configuration
    self.store = store
    self.queue = queue
    self.statistics = statistics
    tokens = PrincipalCache(store: store, lifetime: configuration.tokenLifetime)
    schedules = ScheduleCache(store: store, lifetime: configuration.statisticsLifetime)
    profileRules = ProfileRules(allowsNonTLSMail: configuration.allowsNonTLSMail)
  }
}

/// Remembers for a few seconds who is behind a token, to spare PostgreSQL a query per request.
///
/// Unknown tokens are not remembered, so a new one works at once and guesses cannot fill the memory.
final class PrincipalCache: Sendable {
  private struct Entry {
    let principal: Principal
    let freshUntil: ContinuousClock.Instant
  }

  private static let maximumEntries = 1_024

  private let store: any AdminStore
  private let lifetime: Duration
  private let entries = Mutex<[Secret: Entry]>([:])

  init(store: any AdminStore, lifetime: Duration) {
    self.store = store
    self.lifetime = lifetime
  }

  /// The person behind a token; `nil` for an unknown one. Throws ``StoreError``.
  func principal(_ token: Secret) async throws -> Principal? {
    let now = ContinuousClock.now
    if let entry = entries.withLock({ $0[token] }), now < entry.freshUntil { return entry.principal }
    guard let principal = try await store.principal(token: token) else {
      entries.withLock { $0[token] = nil }
      return nil
    }
    entries.withLock { entries in
      if entries.count >= Self.maximumEntries { entries = entries.filter { now < $0.value.freshUntil } }
      if entries.count >= Self.maximumEntries { entries = [:] }
      entries[token] = Entry(principal: principal, freshUntil: now + lifetime)
    }
    return principal
  }
}

/// Remembers the numbers of each organization's schedule for a moment.
final class ScheduleCache: Sendable {
  private static let maximumEntries = 1_024

  private let store: any AdminStore
  private let lifetime: Duration
  private let caches = Mutex<[OrganizationID: SingleFlightCache<ScheduleStatistics>]>([:])

  init(store: any AdminStore, lifetime: Duration) {
    self.store = store
    self.lifetime = lifetime
  }

  /// The numbers of the principal's organization. Throws ``StoreError``.
  func statistics(for principal: Principal) async throws -> ScheduleStatistics {
    let cache = caches.withLock { caches in
      if let cache = caches[principal.organizationID] { return cache }
      if caches.count >= Self.maximumEntries { caches = [:] }
      let cache = SingleFlightCache(lifetime: lifetime) { [store] in try await store.scheduleStatistics(for: principal)
      }
      caches[principal.organizationID] = cache
      return cache
    }
    return try await cache.value()
  }
}
