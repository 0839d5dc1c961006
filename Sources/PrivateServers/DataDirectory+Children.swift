import Subprocess

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// Records of running children: the second line behind the kernel's death signal.
extension DataDirectory {
  var recordsPath: String { path + "/children" }

  /// What a child's record tells: process id, start time, stop signal, working directory, one per line.
  private struct Record {
    let processID: Int32
    let startTime: String
    let stopSignal: Int32
    let workingDirectory: String

    init?(at path: String) {
      let lines = (Files.read(path) ?? "").split(separator: "\n", maxSplits: 3)
      guard lines.count == 4, let processID = Int32(lines[0]), let stopSignal = Int32(lines[2]) else { return nil }
      self.processID = processID
      self.stopSignal = stopSignal
      startTime = String(lines[1])
      workingDirectory = String(lines[3])
    }

    var isRunning: Bool { ProcessTable.startTime(of: processID) == startTime && ProcessTable.isRunning(processID) }

    /// A session's id is not given to a new process while anything is left of it, so whatever is there is ours, unless
    /// a process of that id started at another time.
    var family: [Int32] {
      let start = ProcessTable.startTime(of: processID)
      let isOurs = start == nil || start == startTime
      return isOurs
        ? ProcessTable.family(of: processID, workingIn: workingDirectory)
        : workingDirectory == "/" ? [] : ProcessTable.processes(workingIn: workingDirectory)
    }

    func sendStopSignal() {
      if isRunning { kill(processID, stopSignal) }
      for process in family { kill(process, SIGCONT) }
    }

    func killFamily() {
      for process in family { kill(process, SIGKILL) }
    }
  }

  private var records: [Record] { Files.names(in: recordsPath).compactMap { Record(at: "\(recordsPath)/\($0)") } }

  /// Notes a child.
  func record(_ child: ChildProcess) {
    guard let start = ProcessTable.startTime(of: child.processID) else { return }
    // Without the record the kernel's signal still ends the child: not worth refusing to start.
    try? Files.write(
      "\(child.processID)\n\(start)\n\(child.stopSignal.rawValue)\n\(child.workingDirectory)",
      to: "\(recordsPath)/\(child.name)")
  }

  /// Removes a child's record, unless its successor has written another.
  func forget(_ child: ChildProcess) {
    let path = "\(recordsPath)/\(child.name)"
    guard Record(at: path)?.processID == child.processID else { return }
    Files.remove(path)
  }

  /// Stops what is left of recorded children, recognized by id and start time. Called under the lock.
  func stopLeftovers() async {
    let records = records
    for record in records { record.sendStopSignal() }
    await ChildProcess.wait(atMost: .seconds(10)) { !records.contains(where: \.isRunning) }
    await ChildProcess.wait(atMost: .seconds(5)) {
      for record in records { record.killFamily() }
      return records.allSatisfy(\.family.isEmpty)
    }
    for name in Files.names(in: recordsPath) { Files.remove("\(recordsPath)/\(name)") }
  }

  /// Ends every recorded child without suspending: for exit handlers, where no task runs any more.
  ///
  /// Takes at most `limit`, then kills.
  public func stopChildrenNow(limit: Duration = .seconds(5)) {
    let records = records
    for record in records { record.sendStopSignal() }
    let deadline = ContinuousClock.now + limit
    while ContinuousClock.now < deadline, records.contains(where: { $0.isRunning || !$0.family.isEmpty }) {
      usleep(5_000)
    }
    for record in records { record.killFamily() }
  }
}
