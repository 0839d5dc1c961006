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
  /// The numbers of each organization's schedule.
  let schedules: OrganizationCache<ScheduleStatistics>
  /// Each organization's poison jobs, the oldest of them.
  let setAside: OrganizationCache<Page<SetAsideJob>>
  /// What happens on each organization's profiles, with what is needed to show it.
  let activity: OrganizationCache<ProfilesSnapshot>
  /// The queue's numbers of every organization's profiles; handed out only with the own profiles' ids.
  let queueProfiles: SingleFlightCache<[ProfileID: ProfileQueueStatistics]>
  let profileRules: ProfileRules
  /// Checks passwords, on a thread of its own.
  let passwords: PasswordHasher
  /// How often each client may try to sign in.
  let signIns: SignInLimiter
  /// `nil`: this server does no OAuth.
  let oauth: (any OAuthDesk)?
  /// `nil`: this server has no webhooks.
  let webhooks: (any WebhookDesk)?

  init(
    _ configuration: AdminServerConfiguration, store: any AdminStore, queue: any JobQueue, statistics: QueueCollector,
    oauth: (any OAuthDesk)? = nil, webhooks: (any WebhookDesk)? = nil
  ) {
    self.configuration = configuration
    self.oauth = oauth
    self.webhooks = webhooks
    passwords = PasswordHasher(cost: configuration.passwordCost)
    signIns = SignInLimiter(configuration.signInLimit)
    self.store = store
    self.queue = queue
    self.statistics = statistics
    tokens = PrincipalCache(store: store, lifetime: configuration.tokenLifetime)
    schedules = OrganizationCache(lifetime: configuration.statisticsLifetime) { principal in
      try await store.scheduleStatistics(for: principal)
    }
    setAside = OrganizationCache(lifetime: configuration.statisticsLifetime) { principal in
      try await store.setAsideJobs(PageRequest(limit: 500), for: principal)
    }
    activity = OrganizationCache(lifetime: configuration.statisticsLifetime) { principal in
      try await ProfilesSnapshot(store, principal)
    }
    queueProfiles = SingleFlightCache(lifetime: configuration.statisticsLifetime) {
      let numbers = try await queue.profiles(limit: ProfilesSnapshot.maximumProfiles)
      return Dictionary(numbers.map { ($0.profileID, $0) }, uniquingKeysWith: { first, _ in first })
    }
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

  /// Forgets a token that ended.
  func forget(_ token: Secret) { entries.withLock { $0[token] = nil } }
}

/// Remembers something of each organization for a moment, however many of its people ask.
final class OrganizationCache<Value: Sendable>: Sendable {
  private static var maximumEntries: Int { 1_024 }

  private let lifetime: Duration
  private let load: @Sendable (Principal) async throws -> Value
  private let caches = Mutex<[OrganizationID: SingleFlightCache<Value>]>([:])

  /// - Parameter load: gets the value of a principal's organization; the same for all its principals.
  init(lifetime: Duration, load: @escaping @Sendable (Principal) async throws -> Value) {
    self.lifetime = lifetime
    self.load = load
  }

  /// The value of the principal's organization. Throws what the load throws.
  func value(for principal: Principal) async throws -> Value {
    let cache = caches.withLock { caches in
      if let cache = caches[principal.organizationID] { return cache }
      if caches.count >= Self.maximumEntries { caches = [:] }
      let cache = SingleFlightCache(lifetime: lifetime) { [load] in try await load(principal) }
      caches[principal.organizationID] = cache
      return cache
    }
    return try await cache.value()
  }
}

/// What PostgreSQL knows of an organization's profiles, for the queue's view of them.
struct ProfilesSnapshot: Sendable {
  /// More profiles than this are not looked at: of the queue those with the fewest waiting jobs.
  static let maximumProfiles = 10_000
  /// Limits of profiles without work are shown for so many.
  private static let maximumLimits = 2_000

  /// Each profile with mailboxes.
  let activity: [ProfileActivity]
  /// The profiles themselves, as far as they were read.
  let profiles: [ProfileID: ServerProfile]

  init(_ store: any AdminStore, _ principal: Principal) async throws {
    activity = try await store.profileActivity(for: principal)
    var profiles: [ProfileID: ServerProfile] = [:]
    var cursor: String?
    repeat {
      let page = try await store.profiles(PageRequest(limit: 500, cursor: cursor), for: principal)
      for profile in page.items { profiles[profile.id] = profile }
      cursor = page.items.isEmpty ? nil : page.nextCursor
    } while cursor != nil && profiles.count < Self.maximumLimits
    self.profiles = profiles
  }
}
