import Foundation
import NIOCore

/// Reads the PostgreSQL protocol: what a client sends, up to each point at which the server begins to work.
///
/// A transaction's statements therefore pass together, and holding one back leaves nothing locked.
final class PostgresTraffic: TrafficReader {
  private var input = ByteBuffer()
  private var unit = ByteBuffer()
  private var point: WirePoint?
  private var isStarted = false
  /// What the statements of this connection do, by name; the empty one is the last without a name.
  private var statements: [String: WirePoint] = [:]
  /// What the next commit will have committed.
  private var awaited: WirePoint?

  func clientSent(_ bytes: ByteBuffer) -> [TrafficUnit] {
    input.writeImmutableBuffer(bytes)
    var units: [TrafficUnit] = []
    while let frame = nextFrame() {
      let type = frame.type
      switch type {
      case UInt8(ascii: "P"): statements[Self.text(frame.bytes, 0)] = Self.point(of: frame.bytes)
      case UInt8(ascii: "B"): point = point ?? statements[Self.text(frame.bytes, 1)]
      default: break
      }
      unit.writeImmutableBuffer(frame.bytes)
      // Parse, Bind, Describe, Execute and Close wait for the Sync, or Flush, behind them.
      if type.map({ "PBDEC".utf8.contains($0) }) ?? false { continue }
      switch point {
      case .storeSent: awaited = .storeAnswered
      case .outcomeSent: awaited = .outcomeAnswered
      case .messageClaimSent: awaited = .messageClaimAnswered
      case .handoverSent: awaited = .handoverAnswered
      case .resultSent: awaited = .resultAnswered
      default: break
      }
      units.append(TrafficUnit(bytes: unit, point: point))
      unit = ByteBuffer()
      point = nil
    }
    input.discardReadBytes()
    return units
  }

  private func nextFrame() -> (type: UInt8?, bytes: ByteBuffer)? {
    let head = isStarted ? 1 : 0
    guard let length = input.getInteger(at: input.readerIndex + head, as: UInt32.self),
      let bytes = input.getSlice(at: input.readerIndex, length: head + Int(length))
    else { return nil }
    input.moveReaderIndex(forwardBy: head + Int(length))
    if isStarted { return (bytes.getInteger(at: bytes.readerIndex), bytes) }
    // Protocol 3: the start-up message. Anything else (a request for TLS, a cancellation) comes before or alone.
    isStarted = bytes.getInteger(at: bytes.readerIndex + 4, as: UInt16.self) == 3
    return (nil, bytes)
  }

  private static let marks: [(WirePoint, Data)] = [
    (.outcomeSent, Data("UPDATE mailbox_schedule s SET".utf8)), (.storeSent, Data("INSERT INTO ledger AS l".utf8)),
    (.checkSent, Data("AS i (mailbox_id, kind, lane)".utf8)),
    // Steps of several messages may pass together, in this order; the first names the point.
    (.resultSent, Data("UPDATE outgoing_email e SET state = i.state".utf8)),
    (.handoverSent, Data("UPDATE outgoing_email e SET unsent_fence = NULL".utf8)),
    (.messageClaimSent, Data("UPDATE outgoing_email e SET state = 'sending'".utf8)),
  ]

  private static func point(of frame: ByteBuffer) -> WirePoint? {
    // The name of the statement is empty or short, its text follows.
    let text = Data(frame.readableBytesView)
    for (point, mark) in marks where text.range(of: mark) != nil {
      // Only outcomes name the fence that they write.
      if point == .outcomeSent, text.range(of: Data("last_fence = CASE i.lane".utf8)) == nil { continue }
      return point
    }
    return nil
  }

  /// A text of a message that begins with texts, each of which ends with NUL: Parse names the statement first, Bind the
  /// portal before it.
  private static func text(_ frame: ByteBuffer, _ index: Int) -> String {
    let texts = frame.readableBytesView.dropFirst(5).split(
      separator: 0, maxSplits: index + 1, omittingEmptySubsequences: false)
    return String(decoding: texts[texts.startIndex + index], as: UTF8.self)
  }

  private static let commit = Data("COMMIT\0".utf8)

  func serverSent(_ bytes: ByteBuffer) -> [TrafficUnit] {
    guard let point = awaited, Data(bytes.readableBytesView).range(of: Self.commit) != nil else {
      return [TrafficUnit(bytes: bytes)]
    }
    awaited = nil
    return [TrafficUnit(bytes: bytes, point: point)]
  }
}
