import FoundationEssentials

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The process's own memory, processor time and open files, under the names that every Prometheus client uses.
///
/// Read from `/proc`; elsewhere there is only the start time.
public enum ProcessCollector {
  /// Memory in use.
  public static let residentMemory = MetricDefinition(
    "process_resident_memory_bytes", .gauge, help: "Resident memory of the process.")
  /// Processor time.
  public static let processorSeconds = MetricDefinition(
    "process_cpu_seconds_total", .counter, help: "Processor time of the process, user and system.")
  /// Open files and sockets.
  public static let openFiles = MetricDefinition(
    "process_open_fds", .gauge, help: "Open file descriptors of the process.")
  /// Start of the process.
  public static let startTime = MetricDefinition(
    "process_start_time_seconds", .gauge, help: "When the process registered its metrics, in seconds since 1970.")

  /// All of them.
  public static let definitions = [residentMemory, processorSeconds, openFiles, startTime]

  /// Shows the numbers at every scrape. Call it at the start of the process.
  public static func register(in registry: PrometheusRegistry) {
    let started = Date.now.timeIntervalSince1970
    registry.addCollector("process", definitions) {
      [MetricSample(startTime, value: started)] + procSamples()
    }
  }

  private static func procSamples() -> [MetricSample] {
    #if os(Linux)
      guard let data = FileManager.default.contents(atPath: "/proc/self/stat"),
        // The command's name is in parentheses and may hold anything; the fields after it do not.
        let tail = String(decoding: data, as: UTF8.self).split(separator: ")").last
      else { return [] }
      // proc(5): after the name, field 3 is the first; 14 and 15 are user and system time in ticks, 24 resident pages.
      let fields = tail.split(separator: " ")
      let ticksPerSecond = Double(sysconf(Int32(_SC_CLK_TCK)))
      guard fields.count > 21, let user = Double(fields[11]), let system = Double(fields[12]),
        let pages = Double(fields[21])
      else { return [] }
      var samples = [
        MetricSample(processorSeconds, value: (user + system) / ticksPerSecond),
        MetricSample(residentMemory, value: pages * Double(sysconf(Int32(_SC_PAGESIZE)))),
      ]
      // Listing the directory opens one descriptor itself.
      if let open = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count {
        samples.append(MetricSample(openFiles, value: Double(max(0, open - 1))))
      }
      return samples
    #else
      return []
    #endif
  }
}
