import FoundationEssentials
import Logging
import Metrics
import PostriderCore
import ServiceLifecycle
import Synchronization

/// Delivers new-mail events to webhooks; runs in every worker, and any number of workers share the work.
///
/// A delivery is taken for a time and counts as delivered only after a 2xx, so it arrives at least once. What fails is tried
/// again with exponential back-off and jitter, the webhook as a whole likewise; after days it is given up, visibly.
public struct WebhookDispatcher: Service {
  /// How delivering behaves.
  public struct Configuration: Sendable {
    /// Deliveries under way at once in this process.
    public var concurrency = 16
    /// Of those to one webhook.
    public var perWebhook = 4
    /// How long a receiver may take.
    public var timeout: Duration = .seconds(15)
    /// The first wait after a failure; doubled with each one, full jitter.
    public var firstPause: Duration = .seconds(10)
    /// The longest.
    public var longestPause: Duration = .seconds(3_600)
    /// After so long a delivery is given up.
    public var patience: Duration = .seconds(3 * 86_400)
    /// How long delivered ones are kept.
    public var keepDelivered: Duration = .seconds(7 * 86_400)
    /// How long those that were given up are kept.
    public var keepDead: Duration = .seconds(30 * 86_400)
    /// How often this process looks by itself.
    public var idleWait: Duration = .seconds(5)
    /// How often it tidies up.
    public var tidying: Duration = .seconds(600)

    /// Production's times.
    public init() {}
  }

  private let queue: any DeliveryQueue
  private let web: WebClient
  private let configuration: Configuration
  private let logger: Logger

  /// A dispatcher over a queue; `web` calls the receivers.
  public init(
    queue: any DeliveryQueue, web: WebClient, configuration: Configuration = Configuration(), logger: Logger
  ) {
    self.queue = queue
    self.web = web
    self.configuration = configuration
    self.logger = logger
    for result in ["delivered", "failed", "dead"] { Self.count(result, by: 0) }
  }

  private static func count(_ result: String, by number: Int = 1) {
    Counter(label: "postrider_webhook_deliveries_total", dimensions: [("result", result)]).increment(by: number)
  }

  /// Longer than an attempt may take, so that nobody repeats one that is under way.
  private var lease: Duration { configuration.timeout + .seconds(30) }

  /// Delivers until the service is stopped. An attempt that is cut off then is made again.
  ///
  /// Each delivery that ends makes room for the next: a slow receiver keeps its own few slots and nobody else's.
  public func run() async throws {
    await cancelWhenGracefulShutdown {
      let slots = Slots(configuration.concurrency)
      await withDiscardingTaskGroup { group in
        defer { group.cancelAll() }
        var tidied: ContinuousClock.Instant?
        var failures = 0
        while !Task.isCancelled {
          do {
            if tidied.map({ ContinuousClock.now - $0 >= configuration.tidying }) ?? true {
              let hasMore = try await queue.tidyDeliveries(
                patience: configuration.patience, keepDelivered: configuration.keepDelivered,
                keepDead: configuration.keepDead)
              tidied = hasMore ? nil : ContinuousClock.now
            }
            if let room = slots.room() {
              let claimed = try await queue.claimDeliveries(
                limit: room.free, perWebhook: configuration.perWebhook, except: room.busy, lease: lease)
              failures = 0
              slots.begin(claimed)
              for delivery in claimed {
                group.addTask {
                  await deliver(delivery)
                  slots.end(delivery)
                }
              }
              if !claimed.isEmpty { continue }
            }
            // Nothing to do at once: a delivery that ends, or mail, goes on with it.
            if tidied == nil { continue }
            if slots.beginWaiting() {
              group.addTask {
                await queue.waitForMail(atMost: configuration.idleWait * Double.random(in: 0.7...1.3))
                slots.endWaiting()
              }
            }
            await slots.changed.wait()
          } catch is CancellationError {
            return
          } catch {
            failures += 1
            if failures == 1 {
              logger.warning("Webhooks cannot be delivered at the moment", metadata: ["error": "\(error)"])
            }
            slots.lookAgain()
            // Cancelled, the loop's condition sees it.
            try? await Task.sleep(for: .seconds(min(failures, 10)))
          }
        }
      }
    }
  }

  /// What is under way in this process, and whether it is worth asking the queue for more.
  private final class Slots: Sendable {
    private struct State {
      var running: [WebhookID: Int] = [:]
      var mayFind = true
      var isWaiting = false
    }

    private let count: Int
    private let state = Mutex(State())
    /// Given when a delivery or the wait for mail has ended.
    let changed = WakeSignal()

    init(_ count: Int) { self.count = count }

    /// How many may begin, and the webhooks that are delivered to now; `nil` when none may, or none would be found.
    func room() -> (free: Int, busy: [WebhookID])? {
      state.withLock { state -> (free: Int, busy: [WebhookID])? in
        let free = count - state.running.values.reduce(0, +)
        guard free > 0, state.mayFind else { return nil }
        state.mayFind = false
        return (free, Array(state.running.keys))
      }
    }

    func begin(_ deliveries: [ClaimedDelivery]) {
      state.withLock { state in
        for delivery in deliveries { state.running[delivery.webhookID, default: 0] += 1 }
        if !deliveries.isEmpty { state.mayFind = true }
      }
    }

    func end(_ delivery: ClaimedDelivery) {
      state.withLock { state in
        let left = (state.running[delivery.webhookID] ?? 1) - 1
        state.running[delivery.webhookID] = left > 0 ? left : nil
        // Until then it is left out, and of others nothing was found.
        if left <= 0 { state.mayFind = true }
      }
      changed.signal()
    }

    func lookAgain() { state.withLock { $0.mayFind = true } }

    /// Whether the caller begins to wait for mail: nobody does, and there is a slot for what comes.
    func beginWaiting() -> Bool {
      state.withLock { state in
        guard !state.isWaiting, state.running.values.reduce(0, +) < count else { return false }
        state.isWaiting = true
        return true
      }
    }

    func endWaiting() {
      state.withLock { state in
        state.isWaiting = false
        state.mayFind = true
      }
      changed.signal()
    }
  }

  private func deliver(_ delivery: ClaimedDelivery) async {
    do {
      if delivery.event == .emailReceived && delivery.email == nil {
        return try await giveUp(delivery, "the message was deleted before it was announced")
      }
      let body = try WebhookPayload(delivery).octets()
      let id = WebhookPayload.id(delivery)
      let timestamp = Int64(Date().timeIntervalSince1970)
      let answer = try await web.send(
        WebClient.Request(
          delivery.url, body: body,
          headers: [
            ("Content-Type", "application/json"), ("webhook-id", id), ("webhook-timestamp", "\(timestamp)"),
            (
              "webhook-signature",
              WebhookSignature.sign(id: id, timestamp: timestamp, body: body, with: delivery.secret)
            ),
          ], timeout: configuration.timeout, maximumOctets: 4_096))
      if (200..<300).contains(answer.status) {
        try await queue.delivered(delivery, status: answer.status)
        return Self.count("delivered")
      }
      try await failed(
        delivery, status: answer.status, "the receiver answered \(answer.status)", answer.retryAfterSeconds,
        isGone: answer.status == 410)
    } catch let failure as Failure {
      await note(delivery) { try await failed(delivery, status: nil, Self.words(failure), nil) }
    } catch is CancellationError {
      // Stopped: its lease ends, and somebody delivers it again.
    } catch {
      logger.warning(
        "What became of a webhook's delivery could not be written",
        metadata: ["delivery.id": "\(delivery.id)", "error": "\(error)"])
    }
  }

  private func note(_ delivery: ClaimedDelivery, _ write: () async throws -> Void) async {
    do { try await write() } catch {
      // It is tried again when its lease is over.
      logger.debug(
        "A failed delivery could not be noted", metadata: ["delivery.id": "\(delivery.id)", "error": "\(error)"])
    }
  }

  private static func words(_ failure: Failure) -> String {
    "\(failure.code.rawValue): \(failure.context ?? failure.code.summary)"
  }

  private func giveUp(_ delivery: ClaimedDelivery, _ reason: String) async throws {
    try await queue.deliveryFailed(delivery, status: nil, reason: reason, retry: nil, pause: nil)
    Self.count("dead")
  }

  private func failed(
    _ delivery: ClaimedDelivery, status: Int?, _ reason: String, _ retryAfter: Int?, isGone: Bool = false
  ) async throws {
    var generator = SystemRandomNumberGenerator()
    func pause(_ failures: Int) -> Duration {
      let backoff = Backoff(base: configuration.firstPause, cap: configuration.longestPause)
      let wait = backoff.delay(afterFailures: max(1, failures), using: &generator)
      return max(wait, retryAfter.map { min(.seconds($0), configuration.longestPause) } ?? .zero)
    }
    // A test is answered at once; 410: the receiver wants no more of it.
    let isOver =
      isGone || delivery.event == .test || delivery.ageSeconds >= configuration.patience / .seconds(1)
    try await queue.deliveryFailed(
      delivery, status: status, reason: reason, retry: isOver ? nil : pause(delivery.attempt),
      pause: delivery.event == .test ? nil : pause(delivery.failures + 1))
    Self.count(isOver ? "dead" : "failed")
    logger.info(
      "A webhook was not delivered",
      metadata: [
        "delivery.id": "\(delivery.id)", "webhook.id": "\(delivery.webhookID)", "reason": "\(reason)",
        "given.up": "\(isOver)",
      ])
  }
}
