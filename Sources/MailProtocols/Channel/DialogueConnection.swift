import Logging
import NIOCore
import PostriderCore
import Synchronization

/// One mail connection as a task sees it: operations one after another, cancellation, the end.
final class DialogueConnection<Machine: Dialogue>: Sendable {
  let channel: any Channel
  private let handler: NIOLoopBound<DialogueHandler<Machine>>
  private let isEnded = Mutex(false)

  init(channel: any Channel, handler: NIOLoopBound<DialogueHandler<Machine>>) {
    self.channel = channel
    self.handler = handler
  }

  deinit {
    // A session that nobody ended is a bug of its user, but it must not keep the socket, nor a server's lock, for ever.
    // One that never connected has nothing to close.
    if !isEnded.withLock({ $0 }) && channel.isActive {
      Logger(label: "postrider.mail").warning("A mail session was dropped without being closed.")
      let handler = handler
      channel.eventLoop.execute { handler.value.interrupt(.aborted) }
    }
  }

  /// Runs one operation to its end. Cancelling the task closes the socket.
  func perform(_ operation: Machine.Operation) async throws -> Machine.Outcome {
    try await withTaskCancellationHandler {
      let box = OperationBox<Machine>()
      return try await withCheckedThrowingContinuation { continuation in
        box.outcome(continuation)
        start(operation, box)
      }
    } onCancel: {
      interrupt(.cancelled)
    }
  }

  /// Runs the operation that ends with a TLS handshake. Returns what the handshake showed, for the trace to keep.
  func secure(_ operation: Machine.Operation, _ trace: SessionTrace) async throws -> String {
    do {
      _ = try await perform(operation)
    } catch {
      // What was seen until then is no more than a help.
      if let facts = try? await read({ $0.tlsFacts }) { trace.note(facts) }
      throw error
    }
    guard let facts = try await read({ $0.tlsFacts }) else { return "" }
    trace.note(facts)
    return facts.summary
  }

  /// Runs one operation and consumes its items as they come. When the consumer throws, the session ends.
  func perform(
    _ operation: Machine.Operation, consume: (Machine.Item) async throws -> Void
  ) async throws {
    try await withTaskCancellationHandler {
      let box = OperationBox<Machine>()
      start(operation, box)
      while true {
        let items = try await box.next { self.resumeReading() }
        if items.isEmpty { return }
        for item in items {
          do {
            try await consume(item)
          } catch {
            interrupt(.aborted)
            throw error
          }
        }
      }
    } onCancel: {
      interrupt(.cancelled)
    }
  }

  /// Runs one operation that sends a message, and hands it the pieces as it asks for them; `nil` is the end. When a piece
  /// cannot be had, the session ends: what is not whole must not look so.
  func perform(
    _ operation: Machine.Operation, feed: () async throws -> [UInt8]?
  ) async throws -> Machine.Outcome {
    try await withTaskCancellationHandler {
      let box = OperationBox<Machine>()
      start(operation, box)
      while await box.wantsBody() {
        do {
          let octets = try await feed()
          onLoop { $0.feed(octets, for: box) }
        } catch {
          if box.isDone { break }
          interrupt(.aborted)
          throw error
        }
      }
      return try await withCheckedThrowingContinuation { box.outcome($0) }
    } onCancel: {
      interrupt(.cancelled)
    }
  }

  /// Runs what uses the connection. The socket is closed when that throws, and at once when the task is cancelled,
  /// whatever it waits for then.
  func whileOpen<Result: Sendable>(_ body: () async throws -> Result) async throws -> Result {
    try await withTaskCancellationHandler {
      do {
        return try await body()
      } catch {
        interrupt(.aborted)
        throw error
      }
    } onCancel: {
      interrupt(.cancelled)
    }
  }

  /// Closes the socket at once, from any thread; does nothing the second time.
  func interrupt(_ reason: Interruption) {
    isEnded.withLock { $0 = true }
    let handler = handler
    channel.eventLoop.execute { handler.value.interrupt(reason) }
  }

  /// Sets the time for the next TLS handshake.
  func limitHandshake(to time: TimeAmount) { onLoop { $0.limitHandshake(to: time) } }

  /// What the handler knows, read on its event loop.
  func read<Value: Sendable>(_ body: @escaping @Sendable (DialogueHandler<Machine>) -> Value) async throws -> Value {
    let handler = handler
    return try await channel.eventLoop.submit { body(handler.value) }.get()
  }

  private func start(_ operation: Machine.Operation, _ box: OperationBox<Machine>) {
    onLoop { $0.begin(operation, box) }
  }

  private func resumeReading() { onLoop { $0.resumeReading() } }

  /// Tells the handler something: at once where the task runs on its event loop. (A task never runs inside of the
  /// handler: the loop runs it by itself.)
  private func onLoop(_ body: @escaping @Sendable (DialogueHandler<Machine>) -> Void) {
    let handler = handler
    if channel.eventLoop.inEventLoop {
      body(handler.value)
    } else {
      channel.eventLoop.execute { body(handler.value) }
    }
  }
}
