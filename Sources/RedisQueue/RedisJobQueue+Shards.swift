import PostriderCore
import Synchronization

extension RedisJobQueue {
  /// What one shard is asked about.
  struct ShardPart<Element: Sendable>: Sendable {
    let shard: RedisShard
    var elements: [Element]
    /// Where each element stood in the whole.
    var positions: [Int]
  }

  /// The shard of a profile.
  func shard(of profile: ProfileID) -> RedisShard {
    shards.count == 1 ? shards[0] : shards[RedisShard.number(of: profile, among: shards.count)]
  }

  /// Elements by the shard of their profile. One part that is empty when there are none: the server is asked all the same,
  /// as it may have lost the epoch.
  func parts<Element: Sendable>(_ elements: [Element], by profile: (Element) -> ProfileID) -> [ShardPart<Element>] {
    guard shards.count > 1, !elements.isEmpty else {
      return [ShardPart(shard: shards[0], elements: elements, positions: Array(elements.indices))]
    }
    var parts = shards.map { ShardPart<Element>(shard: $0, elements: [], positions: []) }
    for (position, element) in elements.enumerated() {
      let number = RedisShard.number(of: profile(element), among: shards.count)
      parts[number].elements.append(element)
      parts[number].positions.append(position)
    }
    return parts.filter { !$0.elements.isEmpty }
  }

  /// Asks the shards of some parts side by side; each answers for itself.
  func results<Element: Sendable, Value: Sendable>(
    _ parts: [ShardPart<Element>],
    _ body: @escaping @Sendable (RedisShard, [Element]) async throws(JobQueueError) -> Value
  ) async -> [Result<Value, JobQueueError>] {
    func result(_ part: ShardPart<Element>) async -> Result<Value, JobQueueError> {
      do throws(JobQueueError) { return .success(try await body(part.shard, part.elements)) } catch {
        return .failure(error)
      }
    }
    if parts.count == 1 { return [await result(parts[0])] }
    return await withTaskGroup(of: (Int, Result<Value, JobQueueError>).self) { group in
      for (index, part) in parts.enumerated() { group.addTask { (index, await result(part)) } }
      var results = [Result<Value, JobQueueError>?](repeating: nil, count: parts.count)
      for await (index, result) in group { results[index] = result }
      return results.compactMap { $0 }
    }
  }

  /// Asks the shards of some parts side by side. Every one is asked before the worst error is thrown.
  @discardableResult
  func onEach<Element: Sendable, Value: Sendable>(
    _ parts: [ShardPart<Element>],
    _ body: @escaping @Sendable (RedisShard, [Element]) async throws(JobQueueError) -> Value
  ) async throws(JobQueueError) -> [Value] {
    let results = await results(parts, body)
    if let trouble = Self.worst(results) { throw trouble }
    return results.compactMap { if case .success(let value) = $0 { value } else { nil } }
  }

  /// Asks every shard side by side.
  @discardableResult
  func onEachShard<Value: Sendable>(
    _ body: @escaping @Sendable (RedisShard) async throws(JobQueueError) -> Value
  ) async throws(JobQueueError) -> [Value] {
    try await onEach(shards.map { ShardPart<Int>(shard: $0, elements: [], positions: []) }) {
      (shard, _) throws(JobQueueError) in try await body(shard)
    }
  }

  /// Asks the shards about elements; the answers, one for each, stand in the order of the elements.
  func inOrder<Element: Sendable, Answer: Sendable>(
    _ elements: [Element], by profile: (Element) -> ProfileID,
    _ body: @escaping @Sendable (RedisShard, [Element]) async throws(JobQueueError) -> [Answer]
  ) async throws(JobQueueError) -> [Answer] {
    let parts = parts(elements, by: profile)
    let answers = try await onEach(parts, body)
    if answers.count == 1 { return answers[0] }
    let numbered = zip(parts, answers).flatMap { part, answers in Array(zip(part.positions, answers)) }
    return numbered.sorted { $0.0 < $1.0 }.map(\.1)
  }

  static func worst<Value>(_ results: [Result<Value, JobQueueError>]) -> JobQueueError? {
    results.compactMap { if case .failure(let error) = $0 { error } else { nil } }.max { $0.severity < $1.severity }
  }
}

extension JobQueueError {
  /// Orders the errors of several shards by how much the caller must know them.
  var severity: Int {
    switch self {
    case .notOpenYet: 0
    case .unavailable: 1
    case .epochLost: 2
    // A new epoch does not help against it.
    case .misconfigured: 3
    }
  }

  /// Whether one shard's error stops the work of all: a new epoch is opened in every shard.
  var concernsEveryShard: Bool { severity >= 2 }
}

/// In which order claims visit the shards.
final class ShardRotation: Sendable {
  private struct State {
    var claims = 0
    var loss: JobQueueError?
  }

  private let state = Mutex(State())
  private let count: Int

  init(count: Int) { self.count = count }

  /// Every shard once, from the next one on. Each second time those that announced work come first: not every time, or a
  /// busy one would keep the others waiting.
  func order(announced: Set<Int>) -> [Int] {
    let claims = state.withLock { state in
      state.claims &+= 1
      return state.claims
    }
    if count == 1 { return [0] }
    let start = claims / 2 % count
    let all = (0..<count).map { (start + $0) % count }
    guard claims.isMultiple(of: 2), !announced.isEmpty else { return all }
    return all.filter(announced.contains) + all.filter { !announced.contains($0) }
  }

  /// An error that a claim could not throw, as it had leases to return.
  func keep(loss: JobQueueError) { state.withLock { $0.loss = loss } }

  func takeLoss() -> JobQueueError? {
    state.withLock { state in
      defer { state.loss = nil }
      return state.loss
    }
  }
}
