import PostriderCore

/// The load of `bench queue`: profiles of every kind, mailboxes with jobs of every kind and class.
struct QueueLoad: Sendable {
  static let profileLimit = 10

  /// Profiles of the base load; mailbox i belongs to profile 1 + i mod count.
  let profileCount: Int
  /// Mailboxes of the base load.
  let mailboxCount: Int
  /// Profiles beyond the base load whose every slot is held, with as many waiting jobs each.
  var blockedProfiles = 0
  /// Waiting jobs of each of them.
  var blockedJobsEach = 0
  /// Mailboxes of one further profile.
  var bigMailboxes = 0

  /// The base load with so many mailboxes, a hundred to a profile, at least a thousand profiles.
  init(mailboxes: Int) {
    mailboxCount = mailboxes
    profileCount = max(1_000, mailboxes / 100)
  }

  /// How jobs of a profile behave.
  enum Kind: Sendable {
    /// Limits count on the profile and its sessions are long: full all the time.
    case full
    /// Limits count on the profile, sessions are short.
    case onProfile
    /// POP3 counts on the profile, SMTP on the mailbox.
    case mixed
    /// Limits count on each mailbox.
    case onMailbox
    /// Limits count on the profile and its sessions do not end.
    case blocked
  }

  func kind(_ profile: ProfileID) -> Kind {
    if profile.value > profileCount { return profile == bigProfile ? .onMailbox : .blocked }
    switch profile.value % 5 {
    case 0: return .full
    case 1: return .onProfile
    case 2: return .mixed
    default: return .onMailbox
    }
  }

  var bigProfile: ProfileID? {
    bigMailboxes > 0 ? ProfileID(Int64(profileCount + blockedProfiles + 1)) : nil
  }

  var profiles: [QueueProfile] {
    (1...profileCount + blockedProfiles + (bigMailboxes > 0 ? 1 : 0)).map { number in
      let id = ProfileID(Int64(number))
      let kind = kind(id)
      return QueueProfile(
        id: id, limit: Self.profileLimit, countsIncomingOnProfile: kind != .onMailbox,
        countsOutgoingOnProfile: kind != .onMailbox && kind != .mixed, weight: number % 100 == 1 ? 5 : 1)
    }
  }

  /// The jobs of the base load, polls of one profile next to each other as a scheduler's page rarely has them: they come
  /// in the order of the mailboxes, so a page holds jobs of every profile.
  ///
  /// Every mailbox is polled, each 50th because a person wants it now; each fifth has mail to send; each tenth is part
  /// of a batch test as well.
  func baseJobs(due: Int64) -> [Job] {
    var jobs: [Job] = []
    jobs.reserveCapacity(mailboxCount * 13 / 10)
    for index in 0..<mailboxCount {
      let mailbox = MailboxID(Int64(index + 1))
      let profile = ProfileID(Int64(1 + index % profileCount))
      // Neighbors of one profile lie `profileCount` apart: kinds and classes are drawn from the round, not the number.
      let round = index / profileCount + index
      let due = due + Int64(index % 1_000)
      jobs.append(
        Job(
          id: JobID(mailbox: mailbox, kind: .poll), profile: profile, jobClass: round % 50 == 0 ? .interactive : .poll,
          dueMilliseconds: due))
      if round % 5 == 1 {
        jobs.append(
          Job(id: JobID(mailbox: mailbox, kind: .send), profile: profile, jobClass: .send, dueMilliseconds: due))
      }
      if round % 10 == 3 {
        jobs.append(
          Job(id: JobID(mailbox: mailbox, kind: .test), profile: profile, jobClass: .batchTest, dueMilliseconds: due))
      }
    }
    return jobs
  }

  /// Polls of the profiles whose slots are held for ever; the first ``profileLimit`` of each are the ones that hold.
  func blockedJobs(due: Int64) -> [Job] {
    guard blockedProfiles > 0 else { return [] }
    return (0..<blockedProfiles * (blockedJobsEach + Self.profileLimit)).map { index in
      Job(
        id: JobID(mailbox: MailboxID(Int64(mailboxCount + index + 1)), kind: .poll),
        profile: ProfileID(Int64(profileCount + 1 + index % blockedProfiles)), jobClass: .poll, dueMilliseconds: due)
    }
  }

  /// Polls of the one big profile.
  func bigJobs(due: Int64) -> [Job] {
    guard let bigProfile else { return [] }
    return (0..<bigMailboxes).map { index in
      Job(
        id: JobID(mailbox: MailboxID(Int64(10_000_000 + index)), kind: .poll), profile: bigProfile, jobClass: .poll,
        dueMilliseconds: due)
    }
  }

  /// The load in the report.
  func describe(batch: Int) -> [String: BenchValue] {
    [
      "profiles": .integer(profileCount), "mailboxes": .integer(mailboxCount), "limit": .integer(Self.profileLimit),
      "jobs": .integer(baseJobs(due: 0).count), "claim_batch": .integer(batch),
      "profiles_full_share": 0.2, "profiles_counting_on_profile_share": 0.6, "renewed_share": 0.1,
      "renewal_s": 5, "classes": "interactive,send,poll,batch-test", "kinds": "poll,send,test",
    ]
  }
}
