import Foundation
import PrivateServers

/// What the bare servers reach on this machine, measured in the same run, and who uses the CPU.
enum Machine {
  /// RPOP a second at pipeline 16 by redis-benchmark; `nil` where that program is not installed.
  static func redisPops(url: String, seconds: Double) async -> Double? {
    let address: [String]
    if let parts = URLComponents(string: url), parts.scheme == "unix" {
      address = ["-s", parts.path]
    } else {
      address = ["-u", url]
    }
    Bench.say("Measuring bare Redis …")
    // Without the program, or when it fails, the figure is left out: it only helps to read the others.
    let output = try? await PrivateProgram.output(
      of: "redis-benchmark", address + ["-t", "rpop", "-P", "16", "-n", String(Int(seconds * 400_000)), "--csv"],
      package: "redis-tools")
    // "RPOP","829187.38",…
    return output?.split(separator: "\n").last.flatMap { line in
      line.split(separator: ",").dropFirst().first.flatMap { Double($0.filter { $0 != "\"" }) }
    }
  }

  /// Adds what a bare `unnest` batch reaches in PostgreSQL.
  static func addPostgresBatch(url: String, seconds: Double, to report: inout BenchReport) throws {
    Bench.say("Measuring bare PostgreSQL …")
    let rates = try PostgresProbe(url: url).batchRowsPerSecond(seconds: seconds)
    report.addMachine("pg_batch_rows_per_s", rates.inserted, "rows a second of a bare INSERT by unnest of 1,000")
    report.addMachine(
      "pg_update_rows_per_s", rates.updated, "rows a second of a bare UPDATE of an indexed column by unnest of 1,000")
  }

  /// CPU seconds of a process so far, its ended and running children included; `nil` where /proc does not tell.
  static func cpuSeconds(of process: Int32?, withChildren: Bool = false) -> Double? {
    guard let process, let own = ticks(process, withEndedChildren: withChildren) else { return nil }
    var total = own.ticks
    if withChildren {
      for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
        guard let pid = Int32(name), let child = ticks(pid, withEndedChildren: false), child.parent == process else {
          continue
        }
        total += child.ticks
      }
    }
    return Double(total) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// CPU seconds of this process.
  static var ownCPUSeconds: Double {
    var usage = rusage()
    #if canImport(Glibc)
      getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    #else
      getrusage(RUSAGE_SELF, &usage)
    #endif
    return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
      + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1_000_000
  }

  /// CPU seconds of this process's ended children.
  static var childrenCPUSeconds: Double {
    var usage = rusage()
    #if canImport(Glibc)
      getrusage(__rusage_who_t(RUSAGE_CHILDREN.rawValue), &usage)
    #else
      getrusage(RUSAGE_CHILDREN, &usage)
    #endif
    return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
      + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1_000_000
  }

  /// Resident octets of this process; 0 where /proc does not tell.
  static var residentOctets: Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
  }

  /// The most octets that were resident since ``forgetPeak()``; 0 where /proc does not tell.
  static var peakResidentOctets: Int {
    let text = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
    return line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) }.map {
      $0 * 1_024
    } ?? 0
  }

  /// The peak counts from now on (proc(5), `clear_refs`).
  static func forgetPeak() {
    // Where that is not possible the peak is that of the whole run, which is on the safe side.
    try? Data("5".utf8).write(to: URL(fileURLWithPath: "/proc/self/clear_refs"))
  }

  /// As many open files as the system allows: each session is one.
  static func raiseFileLimit() {
    var limit = rlimit()
    #if canImport(Glibc)
      let files = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
      let files = RLIMIT_NOFILE
    #endif
    guard getrlimit(files, &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    // Refused: fewer sessions can be held then, and the report says how many.
    setrlimit(files, &limit)
  }

  private static func ticks(_ process: Int32, withEndedChildren: Bool) -> (ticks: Int, parent: Int32)? {
    guard let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
      let end = text.lastIndex(of: ")")
    else { return nil }
    // Behind the name: state, parent, …; utime is the 14th field of the whole line (proc(5)).
    let fields = text[text.index(after: end)...].split(separator: " ")
    guard fields.count > 14, let parent = Int32(fields[1]) else { return nil }
    let numbers = fields[11...14].map { Int($0) ?? 0 }
    return (numbers[0] + numbers[1] + (withEndedChildren ? numbers[2] + numbers[3] : 0), parent)
  }
}
