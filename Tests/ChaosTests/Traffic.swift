import NIOCore

/// A moment in a process's dealings with Redis or PostgreSQL, as seen on the wire between them.
enum WirePoint: String, Sendable, Codable, CaseIterable {
  /// Redis answers a claim with at least one lease.
  case claimGranted
  /// A worker checks claimed jobs in PostgreSQL.
  case checkSent
  /// A worker stores messages.
  case storeSent
  /// PostgreSQL has committed messages.
  case storeAnswered
  /// A worker commits outcomes.
  case outcomeSent
  /// PostgreSQL has committed outcomes.
  case outcomeAnswered
  /// A worker ends leases.
  case completeSent
  /// Redis has ended leases.
  case completeAnswered
  /// A worker commits steps of outgoing messages: some are taken on.
  case messageClaimSent
  /// PostgreSQL has committed those.
  case messageClaimAnswered
  /// The end of a message is about to leave.
  case handoverSent
  case handoverAnswered
  /// What a server answered to a message is committed.
  case resultSent
  case resultAnswered
  /// A scheduler enqueues jobs.
  case enqueueSent
  /// Redis has taken jobs.
  case enqueueAnswered
}

/// A piece of traffic that is passed on as a whole.
struct TrafficUnit {
  var bytes: ByteBuffer
  var point: WirePoint?
  /// The leases that a ``WirePoint/completeSent`` ends: job and fence.
  var leases: [(job: String, fence: Int64)] = []
}

/// Cuts one connection's traffic into units and tells what they are. Confined to an event loop.
protocol TrafficReader: AnyObject {
  func clientSent(_ bytes: ByteBuffer) -> [TrafficUnit]
  func serverSent(_ bytes: ByteBuffer) -> [TrafficUnit]
}

/// Changes the source of a script on its way into Redis.
typealias ScriptEdit = @Sendable (_ source: String) -> String
