import Synchronization

/// Whose connections a limit counts: the mailbox's own account or the account of a profile.
enum Identity: Hashable, Sendable, CustomStringConvertible {
  case profile(Int)
  case mailbox(String)

  var description: String {
    switch self {
    case .profile(let number): "profile \(number)"
    case .mailbox(let address): "mailbox \(address)"
    }
  }
}

/// More sessions of an identity at once than its limit allows.
struct LimitViolation: Sendable, Codable {
  var identity: String
  var limit: Int
  var count: Int
  var atSeconds: Double
  /// Each of the sessions: its age, what it did last, whose it is.
  var sessions: [String] = []
}

/// Counts sessions at the mail server, from accept to close, and remembers the most of each identity.
///
/// A session of a mailbox's own account is known by name only once it logs in; it counts from its accept nevertheless,
/// against those that have ended since. A session whose process is stopped cannot be closed by anybody but its server;
/// it is set apart (``setApart(_:from:)``) and what it adds is counted for itself.
final class SessionCensus: Sendable {
  typealias Clock = ContinuousClock

  private struct Session {
    var accepted: Clock.Instant
    var closed: Clock.Instant?
    var identity: Identity?
    var connection: SocketPair
    var last = "accept"
    /// From when on only its server could close it.
    var apartFrom: Clock.Instant?

    func isOpen(at moment: Clock.Instant) -> Bool { accepted <= moment && (closed.map { $0 > moment } ?? true) }
    func isApart(at moment: Clock.Instant) -> Bool { apartFrom.map { $0 <= moment } ?? false }
  }

  private struct Account {
    var limit: Int
    var sessions: Set<Int> = []
    /// Those that ended lately, for logins that come after their accept.
    var ended: [Session] = []
    var highest = 0
    var highestWithApart = 0
    var total = 0
  }

  private struct State {
    var accounts: [Identity: Account] = [:]
    var sessions: [Int: Session] = [:]
    /// Connections of a stopped process that were not accepted yet, and from when on they are apart.
    var awaited: [SocketPair: Clock.Instant] = [:]
    var next = 0
    var violations: [LimitViolation] = []
    var violationCount = 0
  }

  private let state = Mutex(State())
  private let began = Mutex(Clock.now)
  private let owner = Mutex<@Sendable (_ connection: SocketPair) -> String>({ _ in "" })

  /// Announces an identity and how many sessions it may have.
  func expect(_ identity: Identity, limit: Int) {
    state.withLock { $0.accounts[identity, default: Account(limit: limit)].limit = limit }
  }

  /// Counts seconds from now on, and asks this for the owner of a connection.
  func begin(owner find: @escaping @Sendable (_ connection: SocketPair) -> String) {
    began.withLock { $0 = Clock.now }
    owner.withLock { $0 = find }
  }

  /// Remembers what a session did last.
  func did(_ number: Int, _ what: String) { state.withLock { $0.sessions[number]?.last = what } }

  /// A connection was accepted; `identity` where the port tells it. Returns its number.
  func accepted(identity: Identity?, connection: SocketPair) -> Int {
    state.withLock { state in
      state.next += 1
      let number = state.next
      state.sessions[number] = Session(
        accepted: Clock.now, connection: connection, apartFrom: state.awaited.removeValue(forKey: connection))
      if let identity { join(number, identity, &state) }
      return number
    }
  }

  /// A session logged in as its mailbox's own account.
  func identified(_ number: Int, as identity: Identity) {
    state.withLock { state in
      if state.sessions[number]?.identity == nil { join(number, identity, &state) }
    }
  }

  func closed(_ number: Int) {
    state.withLock { state in
      guard var session = state.sessions.removeValue(forKey: number) else { return }
      session.closed = Clock.now
      guard let identity = session.identity else { return }
      state.accounts[identity]?.sessions.remove(number)
      state.accounts[identity]?.ended.append(session)
      if let count = state.accounts[identity]?.ended.count, count > 64 {
        state.accounts[identity]?.ended.removeFirst(count - 64)
      }
    }
  }

  private func join(_ number: Int, _ identity: Identity, _ state: inout State) {
    guard var session = state.sessions[number], var account = state.accounts[identity] else { return }
    session.identity = identity
    state.sessions[number] = session
    account.sessions.insert(number)
    account.total += 1
    let all = account.sessions.compactMap { state.sessions[$0] } + account.ended
    let moments = [session.accepted] + all.map(\.accepted).filter { $0 > session.accepted }
    for moment in moments {
      let open = all.filter { $0.isOpen(at: moment) }
      let counted = open.count { !$0.isApart(at: moment) }
      account.highest = max(account.highest, counted)
      account.highestWithApart = max(account.highestWithApart, open.count)
      if counted > account.limit {
        state.violationCount += 1
        if state.violations.count < 50 {
          state.violations.append(
            LimitViolation(
              identity: identity.description, limit: account.limit, count: counted,
              atSeconds: (moment - began.withLock { $0 }) / .seconds(1),
              sessions: open.map { session in
                let age = (Clock.now - session.accepted) / .seconds(1)
                let end = session.closed == nil ? "open" : "ended"
                return "\(end) \(age) s, \(session.last), \(owner.withLock { $0 }(session.connection))"
              }))
        }
      }
    }
    state.accounts[identity] = account
  }

  /// Sets sessions apart from a moment on whose process is stopped, by their connections. Returns how many.
  func setApart(_ connections: Set<SocketPair>, from moment: Clock.Instant) -> Int {
    state.withLock { state in
      var count = 0
      state.awaited = Dictionary(uniqueKeysWithValues: connections.map { ($0, moment) })
      for (number, session) in state.sessions {
        guard state.awaited.removeValue(forKey: session.connection) != nil, session.apartFrom == nil else { continue }
        state.sessions[number]?.apartFrom = moment
        count += 1
      }
      return count
    }
  }

  /// How many sessions that were set apart are still open.
  var apart: Int { state.withLock { $0.sessions.values.count { $0.apartFrom != nil } } }

  /// Open sessions that count, and slots there are.
  var use: (busy: Int, slots: Int) {
    state.withLock { state in
      (
        state.sessions.values.count { $0.identity != nil && !$0.isApart(at: .now) },
        state.accounts.values.reduce(0) { $0 + $1.limit }
      )
    }
  }

  /// The share of all slots that is in use.
  var share: Double {
    let (busy, slots) = use
    return slots == 0 ? 0 : Double(busy) / Double(slots)
  }

  /// What was seen of every identity.
  var seen: [(identity: Identity, limit: Int, highest: Int, withApart: Int, total: Int)] {
    state.withLock { state in
      state.accounts.map { ($0.key, $0.value.limit, $0.value.highest, $0.value.highestWithApart, $0.value.total) }
    }
  }

  var violations: (count: Int, first: [LimitViolation]) { state.withLock { ($0.violationCount, $0.violations) } }
}
