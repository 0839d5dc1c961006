import FoundationEssentials
import PostriderCore
import Synchronization

/// The steps of one direction's session, as they happen.
///
/// Steps never hold secrets: servers' words are redacted before they get here, and what was tried is written by us.
public final class SessionTrace: Sendable {
  /// At most this many steps are kept; a session has about a dozen.
  public static let maximumSteps = 1_000

  /// The direction of every step.
  public let direction: Direction
  private let recorded = Mutex<[TraceStep]>([])
  private let handshake = Mutex<TLSFacts?>(nil)
  private let onStep: (@Sendable (TraceStep) -> Void)?

  /// Starts an empty trace; `onStep` sees each step when it ends, for live output.
  public init(direction: Direction, onStep: (@Sendable (TraceStep) -> Void)? = nil) {
    self.direction = direction
    self.onStep = onStep
  }

  /// The steps so far.
  public var steps: [TraceStep] { recorded.withLock { $0 } }

  /// What the TLS handshake showed; `nil` when there was none yet.
  public var tls: TLSFacts? { handshake.withLock { $0 } }

  /// Keeps what a TLS handshake showed.
  func note(_ facts: TLSFacts) { handshake.withLock { $0 = facts } }

  /// Adds a step.
  public func record(_ step: TraceStep) {
    recorded.withLock { if $0.count < Self.maximumSteps { $0.append(step) } }
    onStep?(step)
  }

  /// Runs a step and records how it went. The body returns its value and the server's words, redacted.
  ///
  /// Throws what the body throws.
  public func measure<Value>(
    _ name: StepName, _ tried: String, _ body: () async throws -> (value: Value, words: String?)
  ) async throws -> Value {
    let startedAt = Date()
    let start = ContinuousClock.now
    func step(_ result: StepResult, words: String?, code: FailureCode?) -> TraceStep {
      TraceStep(
        direction: direction, name: name, tried: tried, result: result, startedAt: startedAt,
        milliseconds: (ContinuousClock.now - start) / .milliseconds(1), serverWords: words, code: code)
    }
    do {
      let (value, words) = try await body()
      record(step(.ok, words: words?.isEmpty == true ? nil : words, code: nil))
      return value
    } catch let failure as Failure {
      record(step(.failed, words: failure.serverWords ?? failure.context, code: failure.code))
      throw failure
    } catch {
      record(step(.failed, words: nil, code: error is CancellationError ? .runAborted : .internalError))
      throw error
    }
  }
}
