import Foundation
import NIOCore
import PostriderTesting
import Synchronization

/// Sees what passes between all processes and their services.
final class Telltale: Sendable {
  typealias Clock = ContinuousClock

  private struct State {
    var last: [WirePoint: [Int32: Clock.Instant]] = [:]
    var counts: [WirePoint: Int] = [:]
    /// When a worker asked to end the lease of a job: job and fence, seconds since 1970.
    var completes: [String: Double] = [:]
  }

  private let state = Mutex(State())

  func note(_ point: WirePoint, _ process: Int32, _ leases: [(job: String, fence: Int64)]) {
    state.withLock { state in
      state.last[point, default: [:]][process] = Clock.now
      state.counts[point, default: 0] += 1
      let now = Date().timeIntervalSince1970
      for lease in leases where state.completes["\(lease.job) \(lease.fence)"] == nil {
        state.completes["\(lease.job) \(lease.fence)"] = now
      }
    }
  }

  /// Waits for a point after a moment, of one process or of any but `except`. Returns when it was, `nil` when it did not
  /// come.
  func wait(
    for points: [WirePoint], after moment: Clock.Instant, of only: Int32? = nil, except: Int32? = nil,
    within limit: Duration
  ) async -> Clock.Instant? {
    let end = Clock.now + limit
    while true {
      let found = state.withLock { state in
        points.flatMap { point in
          (state.last[point] ?? [:]).filter { process, _ in process != except && (only == nil || process == only) }
            .values
        }.filter { $0 > moment }.min()
      }
      if let found { return found }
      guard Clock.now < end else { return nil }
      try? await Task.sleep(for: .milliseconds(5))  // Cancelled: it ends by the limit.
    }
  }

  var completes: [String: Double] { state.withLock(\.completes) }
  var counts: [WirePoint: Int] { state.withLock(\.counts) }
}

/// What a process does on the wire, and the trap that is set for it.
final class ProcessWatch: Sendable {
  /// Decides at a point; `nil` leaves the trap set.
  typealias Trap = @Sendable (WirePoint, TrafficUnit) -> Passage?

  private let trap = Mutex<Trap?>(nil)
  private let process = Mutex<Int32>(0)
  private let telltale: Telltale

  init(_ telltale: Telltale) { self.telltale = telltale }

  func isProcess(_ id: Int32) { process.withLock { $0 = id } }
  func set(_ new: Trap?) { trap.withLock { $0 = new } }

  func see(_ point: WirePoint, _ unit: TrafficUnit) -> Passage {
    telltale.note(point, process.withLock { $0 }, unit.leases)
    guard let set = trap.withLock({ $0 }), let passage = set(point, unit) else { return .pass }
    trap.withLock { $0 = nil }
    return passage
  }
}

/// A real worker or scheduler with its ways to Redis and PostgreSQL.
final class ClusterProcess: Sendable {
  enum Role: String, Sendable { case worker, scheduler }

  let role: Role
  let program: RunningProgram
  let redis: Gate
  let postgres: Gate
  let watch: ProcessWatch
  let probePort: Int

  init(role: Role, program: RunningProgram, redis: Gate, postgres: Gate, watch: ProcessWatch, probePort: Int) {
    self.role = role
    self.program = program
    self.redis = redis
    self.postgres = postgres
    self.watch = watch
    self.probePort = probePort
  }

  var id: Int32 { program.processID }

  /// Its TCP connections.
  var connections: Set<SocketPair> { SocketTable.connections(of: id) }

  /// Ends what is left of it. `CHAOS_LOGS` names a folder that keeps what it said.
  func bury() async {
    program.signal(SIGCONT)
    program.signal(SIGKILL)
    _ = await program.exit()
    redis.close()
    postgres.close()
    if let folder = ProcessInfo.processInfo.environment["CHAOS_LOGS"] {
      // For the person who looks for a cause; a run does not need it.
      try? Data(program.errors.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(role)-\(id).log"))
    }
    program.forget()
  }
}

/// The two ports of a TCP connection between loopback addresses. Each of our servers has a port of its own.
struct SocketPair: Hashable, Sendable {
  var client: Int
  var server: Int
}

/// Which process a TCP connection of this machine belongs to (Linux, `/proc`).
enum SocketTable {
  /// The IPv4 connections that a process has opened.
  static func connections(of process: Int32) -> Set<SocketPair> {
    let inodes = Set(inodes(of: process))
    return Set(table().filter { inodes.contains($0.inode) }.map(\.pair))
  }

  /// Which of the processes has opened this connection.
  static func owner(of connection: SocketPair, among processes: [Int32]) -> Int32? {
    let wanted = Set(table().filter { $0.pair == connection }.map(\.inode))
    return processes.first { !wanted.isDisjoint(with: inodes(of: $0)) }
  }

  private static func inodes(of process: Int32) -> [String] {
    let folder = "/proc/\(process)/fd"
    // A process that has just ended has no files.
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return names.compactMap { name in
      var link = [CChar](repeating: 0, count: 64)
      let length = readlink("\(folder)/\(name)", &link, 63)
      let text = String(decoding: link.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
      return text.hasPrefix("socket:[") ? String(text.dropFirst(8).dropLast()) : nil
    }
  }

  private static func port(_ field: Substring) -> Int? {
    field.split(separator: ":").last.flatMap { Int($0, radix: 16) }
  }

  private static func table() -> [(pair: SocketPair, inode: String)] {
    // Read to its end: such a file tells no size, and gets longer than one buffer.
    guard let file = FileHandle(forReadingAtPath: "/proc/self/net/tcp") else { return [] }
    let text = String(decoding: (try? file.readToEnd()) ?? Data(), as: UTF8.self)
    return text.split(separator: "\n").dropFirst().compactMap { line in
      let fields = line.split(separator: " ")
      guard fields.count > 9, let own = port(fields[1]), let other = port(fields[2]) else { return nil }
      return (SocketPair(client: own, server: other), String(fields[9]))
    }
  }
}
