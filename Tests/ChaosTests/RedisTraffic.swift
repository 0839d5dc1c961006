import Crypto
import NIOCore

@testable import RedisQueue

/// Reads RESP: commands one by one, replies one by one in the order of the commands.
final class RedisTraffic: TrafficReader {
  private let edit: ScriptEdit?
  private var requests = ByteBuffer()
  private var replies = ByteBuffer()
  /// What the server has not answered yet.
  private var waiting = CircularBuffer<Kind>()
  private var isSubscription = false

  private enum Kind { case claim, complete, enqueue, other }

  init(edit: ScriptEdit?) { self.edit = edit }

  /// The scripts by what they are known as in Redis; with `edit` they have other names.
  private static func hash(_ source: String) -> String {
    Insecure.SHA1.hash(data: Array(source.utf8)).map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }

  private lazy var kinds: [String: Kind] = {
    var kinds: [String: Kind] = [:]
    for (script, kind) in [(RedisScript.claim, Kind.claim), (.complete, .complete), (.enqueue, .enqueue)] {
      kinds[Self.hash(edit.map { $0(script.source) } ?? script.source)] = kind
    }
    return kinds
  }()

  func clientSent(_ bytes: ByteBuffer) -> [TrafficUnit] {
    requests.writeImmutableBuffer(bytes)
    var units: [TrafficUnit] = []
    while let (length, words) = RESP.value(in: requests) {
      guard let slice = requests.readSlice(length: length) else { break }
      units.append(unit(slice, words))
    }
    requests.discardReadBytes()
    return units
  }

  private func unit(_ slice: ByteBuffer, _ words: [Range<Int>]) -> TrafficUnit {
    func word(_ index: Int) -> String {
      guard index < words.count else { return "" }
      return slice.getString(at: slice.readerIndex + words[index].lowerBound, length: words[index].count) ?? ""
    }
    var unit = TrafficUnit(bytes: slice)
    var kind = Kind.other
    switch word(0).uppercased() {
    case "EVALSHA":
      kind = kinds[word(1)] ?? .other
      if kind == .enqueue { unit.point = .enqueueSent }
      if kind == .complete {
        unit.point = .completeSent
        let epoch = Int64(word(4)) ?? 0
        for index in words.indices.dropFirst(5) {
          let job = word(index)
          guard Self.isJob(job), let counter = Int64(word(index + 1)) else { continue }
          unit.leases.append((job, epoch << 32 | counter))
        }
        if unit.leases.isEmpty { unit.point = nil }
      }
    case "SCRIPT":
      if let edit, word(1).uppercased() == "LOAD" {
        let source = edit(word(2))
        unit.bytes = ByteBuffer(string: "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$\(source.utf8.count)\r\n\(source)\r\n")
      }
    case "SUBSCRIBE": isSubscription = true
    default: break
    }
    waiting.append(kind)
    return unit
  }

  func serverSent(_ bytes: ByteBuffer) -> [TrafficUnit] {
    if isSubscription { return [TrafficUnit(bytes: bytes)] }
    replies.writeImmutableBuffer(bytes)
    var units: [TrafficUnit] = []
    while let (length, words) = RESP.value(in: replies) {
      guard let slice = replies.readSlice(length: length) else { break }
      var unit = TrafficUnit(bytes: slice)
      switch waiting.popFirst() {
      case .claim:
        let granted = words.contains { range in
          Self.isJob(slice.getString(at: slice.readerIndex + range.lowerBound, length: range.count) ?? "")
        }
        if granted { unit.point = .claimGranted }
      case .complete: unit.point = .completeAnswered
      case .enqueue: unit.point = .enqueueAnswered
      default: break
      }
      units.append(unit)
    }
    replies.discardReadBytes()
    return units
  }

  /// Digits, then the letter of a kind.
  private static func isJob(_ text: String) -> Bool {
    guard text.utf8.count < 24, let first = text.first, first.isNumber, let letter = text.firstIndex(where: \.isLetter)
    else { return false }
    return "pst".contains(text[letter]) && text[..<letter].allSatisfy(\.isNumber)
      && text[text.index(after: letter)...].allSatisfy(\.isNumber)
  }
}

/// RESP2 framing.
enum RESP {
  /// The first value in a buffer: its length and where its strings are, from the reader index. `nil` when it is not
  /// whole yet.
  static func value(in buffer: ByteBuffer) -> (length: Int, strings: [Range<Int>])? {
    buffer.withUnsafeReadableBytes { bytes in
      var strings: [Range<Int>] = []
      guard let end = end(bytes, 0, &strings) else { return nil }
      return (end, strings)
    }
  }

  private static func end(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ strings: inout [Range<Int>]) -> Int? {
    guard start < bytes.count else { return nil }
    var position = start + 1
    while position < bytes.count && bytes[position] != UInt8(ascii: "\n") { position += 1 }
    guard position < bytes.count else { return nil }
    let next = position + 1
    switch bytes[start] {
    case UInt8(ascii: "$"):
      let length = number(bytes, start + 1)
      guard length >= 0 else { return next }
      guard next + length + 2 <= bytes.count else { return nil }
      strings.append(next..<next + length)
      return next + length + 2
    case UInt8(ascii: "*"):
      var end = next
      for _ in 0..<max(0, number(bytes, start + 1)) {
        guard let after = Self.end(bytes, end, &strings) else { return nil }
        end = after
      }
      return end
    default: return next
    }
  }

  private static func number(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int {
    var value = 0
    var position = start
    let isNegative = bytes[position] == UInt8(ascii: "-")
    if isNegative { position += 1 }
    while position < bytes.count, (48...57).contains(bytes[position]) {
      value = value * 10 + Int(bytes[position] - 48)
      position += 1
    }
    return isNegative ? -value : value
  }
}
