import NIOCore
import PostriderCore

/// Fetching and deleting: RETR, TOP, DELE.
extension POP3Dialogue {
  struct Retrieval {
    let numbers: [Int]
    let maximumOctets: Int64
    let window: Int
    let budget: RetrievalBudget
    var requested = 0
    var answered = 0
    /// Octets of all messages so far.
    var receivedOctets: Int64 = 0
    /// Whether the budget is used up; once it is, it stays so.
    private var isUsedUp = false
    var body: Body?
    /// What is to be emitted before anything else happens.
    var queued: POP3Item?
    /// Why the session ends once that was emitted.
    var ending: Failure?

    init(numbers: [Int], maximumOctets: Int64, window: Int, budget: RetrievalBudget = RetrievalBudget()) {
      self.numbers = numbers
      self.maximumOctets = maximumOctets
      self.window = window
      self.budget = budget
    }

    /// Whether nothing more is to come.
    mutating func isOver() -> Bool {
      if answered == numbers.count { return true }
      if requested > 0, !isUsedUp { isUsedUp = budget.isUsedUp(receivedOctets) }
      return isUsedUp && answered == requested
    }

    /// The next commands, when the window is at least half empty; `nil` when there are none.
    mutating func request(_ verb: String) -> ByteBuffer? {
      guard requested < numbers.count, requested - answered <= window / 2, !isUsedUp else { return nil }
      var commands = ByteBuffer()
      while requested < numbers.count, requested - answered < window {
        commands.writeString("\(verb) \(numbers[requested])\r\n")
        requested += 1
      }
      return commands
    }
  }

  struct Body {
    var unstuffer = DotUnstuffer()
    var sizeOctets: Int64 = 0
  }

  struct TopBody {
    var body: Body?
    var octets: [UInt8] = []
  }

  struct Deletion {
    var queue: Retrieval
    var failures: [Int: Failure] = [:]

    init(numbers: [Int], window: Int) { queue = Retrieval(numbers: numbers, maximumOctets: 0, window: window) }
  }

  mutating func readRetrieval(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .retrieving(var retrieval) = state else { return .wait(.answer, step: step) }
    state = .idle
    if let item = retrieval.queued {
      retrieval.queued = nil
      state = .retrieving(retrieval)
      return .emit(item, octets: 0)
    }
    if let failure = retrieval.ending { throw failure }
    if retrieval.isOver() { return .done(.done(words: "")) }
    if retrieval.requested == retrieval.answered { try requireQuiet(input) }
    if let commands = retrieval.request("RETR") {
      state = .retrieving(retrieval)
      return .send(commands)
    }
    let number = retrieval.numbers[retrieval.answered]
    if retrieval.body == nil {
      switch try plainStatus(&input) {
      case nil:
        state = .retrieving(retrieval)
        return .wait(.answer, step: step)
      case .failure(let error):
        retrieval.answered += 1
        state = .retrieving(retrieval)
        return .emit(.message(number, .refused(sorted(error, at: .retrieve))), octets: 0)
      case .success: retrieval.body = Body()
      }
    }
    if input.isEmpty {
      state = .retrieving(retrieval)
      return .wait(.body, step: step)
    }
    return try readBody(&input, retrieval, number)
  }

  private mutating func readBody(
    _ input: inout LineBuffer, _ given: Retrieval, _ number: Int
  ) throws(Failure) -> Action {
    var retrieval = given
    guard var body = retrieval.body else { return .wait(.body, step: step) }
    let (octets, finished) = Self.read(&input, &body)
    let fits = body.sizeOctets <= retrieval.maximumOctets
    // The rest of what is a little too large is read, so that the session can go on; of more, the end is not waited for.
    let isEndless = !finished && body.sizeOctets - retrieval.maximumOctets > Self.drainOctets
    retrieval.receivedOctets += Int64(octets.count)
    retrieval.body = body
    if finished || isEndless {
      step += 1
      retrieval.body = nil
      retrieval.answered += 1
      let size = "\(finished ? "" : "more than ")\(body.sizeOctets)"
      let tooLarge = Failure(
        .messageTooLarge, context: "message \(number) has \(size) octets, allowed are \(retrieval.maximumOctets)")
      retrieval.queued = .message(number, fits ? .end(sizeOctets: body.sizeOctets) : .refused(tooLarge))
      if isEndless { retrieval.ending = tooLarge }
    }
    state = .retrieving(retrieval)
    if fits, !octets.isEmpty {
      return .emit(.message(number, .octets(octets)), octets: octets.count)
    }
    return next(&input)
  }

  private static func read(_ input: inout LineBuffer, _ body: inout Body) -> (octets: [UInt8], finished: Bool) {
    var octets: [UInt8] = []
    octets.reserveCapacity(input.readableOctets)
    let finished = input.consume { bytes in
      let progress = body.unstuffer.read(bytes, into: &octets)
      return (progress.taken, progress.finished)
    }
    body.sizeOctets += Int64(octets.count)
    return (octets, finished)
  }

  mutating func readTop(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .top(var top) = state else { return .wait(.answer, step: step) }
    state = .idle
    if top.body == nil {
      switch try plainStatus(&input) {
      case nil:
        state = .top(top)
        return .wait(.answer, step: step)
      case .failure(let error): return refused(error, at: .top)
      case .success: top.body = Body()
      }
    }
    if var body = top.body, !input.isEmpty {
      let (octets, finished) = Self.read(&input, &body)
      // A header that is longer is read to its end and cut: one odd message must not end the session.
      top.octets += octets.prefix(Self.topOctets - top.octets.count)
      top.body = body
      if finished { return done(.octets(top.octets)) }
      if body.sizeOctets > Self.drainOctets {
        throw Failure(.protocolLimit, context: "more than \(Self.drainOctets) octets for TOP")
      }
    }
    state = .top(top)
    return .wait(.body, step: step)
  }

  mutating func readDeletion(_ input: inout LineBuffer) throws(Failure) -> Action {
    guard case .deleting(var deletion) = state else { return .wait(.answer, step: step) }
    state = .idle
    while deletion.queue.answered < deletion.queue.numbers.count {
      if deletion.queue.requested == deletion.queue.answered { try requireQuiet(input) }
      if let commands = deletion.queue.request("DELE") {
        state = .deleting(deletion)
        return .send(commands)
      }
      switch try plainStatus(&input) {
      case nil:
        state = .deleting(deletion)
        return .wait(.answer, step: step)
      case .failure(let error):
        deletion.failures[deletion.queue.numbers[deletion.queue.answered]] = sorted(error, at: .delete)
      case .success: break
      }
      deletion.queue.answered += 1
    }
    return .done(.deleted(deletion.failures))
  }
}
