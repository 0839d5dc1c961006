import FoundationEssentials

/// What a pause stops.
public enum PauseScope: Hashable, Sendable {
  /// Every mailbox of the organization.
  case organization
  /// Every mailbox of a profile.
  case profile(ProfileID)
  /// One mailbox.
  case mailbox(MailboxID)
}

/// A pause that a person made and nobody ended yet. Running sessions end by themselves; no new one begins.
public struct Pause: Hashable, Sendable, Codable {
  /// `organization`, `profile` or `mailbox`.
  public var scope: String
  /// The profile's or mailbox's number; `nil` for the organization.
  public var id: Int64?
  /// The profile's name, the mailbox's address or the organization's name.
  public var name: String
  /// Since when.
  public var since: Date
  /// Who paused it.
  public var by: String

  /// Describes a pause.
  public init(scope: String, id: Int64?, name: String, since: Date, by: String) {
    self.scope = scope
    self.id = id
    self.name = name
    self.since = since
    self.by = by
  }
}

/// What becomes of the mail of a mailbox whose server gave it new unique ids. Until a person chooses nothing is imported.
public enum ReimportChoice: String, Hashable, Sendable, Codable, CaseIterable {
  /// Everything is imported again, also what is stored.
  case all
  /// What is stored already, by Message-ID or content, is taken as known; the rest is imported.
  case missing
}

/// A poison job as PostgreSQL remembers it: it does not run until a person releases it.
public struct SetAsideJob: Hashable, Sendable, Codable {
  /// The job's written id.
  public var job: String
  /// Its mailbox.
  public var mailboxID: MailboxID
  /// That mailbox's address.
  public var address: String
  /// Its profile.
  public var profileID: ProfileID?
  /// How often it was taken back from a worker.
  public var reclaims: Int
  /// The last worker that held it.
  public var worker: String
  /// When it was set aside.
  public var since: Date

  /// Describes a job that was set aside.
  public init(
    job: String, mailboxID: MailboxID, address: String, profileID: ProfileID?, reclaims: Int, worker: String,
    since: Date
  ) {
    self.job = job
    self.mailboxID = mailboxID
    self.address = address
    self.profileID = profileID
    self.reclaims = reclaims
    self.worker = worker
    self.since = since
  }
}

/// What happened on a profile lately.
public struct ProfileActivity: Hashable, Sendable, Codable {
  /// Which profile.
  public var profileID: ProfileID
  /// Its name.
  public var name: String
  /// Runnable rows that are due now.
  public var due: Int
  /// Sessions that ended in the last five minutes.
  public var runs: Int
  /// Those of them that failed.
  public var failures: Int
  /// Since when it is paused, itself or its organization; `nil` when it is not.
  public var pausedAt: Date?

  /// Describes a profile's recent past.
  public init(profileID: ProfileID, name: String, due: Int, runs: Int, failures: Int, pausedAt: Date? = nil) {
    self.profileID = profileID
    self.name = name
    self.due = due
    self.runs = runs
    self.failures = failures
    self.pausedAt = pausedAt
  }
}

/// A repair of the queue that a person asked for; the leading scheduler does it.
public struct RepairRequest: Hashable, Sendable, Codable {
  /// Its number.
  public var id: Int64
  /// When it was asked for.
  public var requestedAt: Date
  /// By whom.
  public var by: String
  /// When it was done; `nil` while it waits or runs.
  public var finishedAt: Date?
  /// What was found; `nil` before the end.
  public var report: RepairReport?

  /// Describes a request.
  public init(id: Int64, requestedAt: Date, by: String, finishedAt: Date? = nil, report: RepairReport? = nil) {
    self.id = id
    self.requestedAt = requestedAt
    self.by = by
    self.finishedAt = finishedAt
    self.report = report
  }
}
