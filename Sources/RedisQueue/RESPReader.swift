import CHiredis
import NIOCore

/// hiredis's incremental reply parser. Takes bytes cut anywhere and gives back whole replies in order.
struct RESPReader: ~Copyable {
  private let reader: UnsafeMutablePointer<redisReader>

  init() {
    guard let reader = redisReaderCreate() else { preconditionFailure("out of memory") }
    self.reader = reader
  }

  deinit { redisReaderFree(reader) }

  func feed(_ bytes: UnsafeRawBufferPointer) throws(RedisConnectionFailure) {
    guard let start = bytes.bindMemory(to: CChar.self).baseAddress else { return }
    guard redisReaderFeed(reader, start, bytes.count) == REDIS_OK else { throw failure }
  }

  /// The next whole reply, or `nil` when more bytes are needed.
  func next() throws(RedisConnectionFailure) -> RedisValue? {
    var raw: UnsafeMutableRawPointer?
    guard redisReaderGetReply(reader, &raw) == REDIS_OK else { throw failure }
    guard let raw else { return nil }
    defer { freeReplyObject(raw) }
    return try Self.value(of: raw.assumingMemoryBound(to: redisReply.self).pointee)
  }

  private var failure: RedisConnectionFailure {
    let text = withUnsafeBytes(of: reader.pointee.errstr) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    return .malformedReply(text)
  }

  /// hiredis bounds the nesting (7 in 0.14, 9 in 1.x), so the recursion is bounded too.
  private static func value(of reply: redisReply) throws(RedisConnectionFailure) -> RedisValue {
    switch reply.type {
    case REDIS_REPLY_NIL: return .null
    case REDIS_REPLY_INTEGER: return .integer(Int64(reply.integer))
    case REDIS_REPLY_STRING, REDIS_REPLY_STATUS: return .string(text(of: reply))
    case REDIS_REPLY_ERROR: return .error(text(of: reply))
    case REDIS_REPLY_ARRAY:
      var values: [RedisValue] = []
      values.reserveCapacity(Int(reply.elements))
      for index in 0..<Int(reply.elements) {
        guard let element = reply.element?[index] else { return .null }
        values.append(try value(of: element.pointee))
      }
      return .array(values)
    default: throw .malformedReply("a type that RESP2 does not have")
    }
  }

  private static func text(of reply: redisReply) -> String {
    guard let start = reply.str else { return "" }
    return String(decoding: UnsafeRawBufferPointer(start: start, count: Int(reply.len)), as: UTF8.self)
  }
}

/// Formats one command as RESP and appends it.
func writeCommand(_ arguments: [String], to buffer: inout ByteBuffer) throws(RedisConnectionFailure) {
  var bytes: [CChar] = []
  var lengths: [Int] = []
  lengths.reserveCapacity(arguments.count)
  for argument in arguments {
    let utf8 = argument.utf8
    lengths.append(utf8.count)
    bytes.append(contentsOf: utf8.lazy.map { CChar(bitPattern: $0) })
  }
  var command: UnsafeMutablePointer<CChar>?
  let length = bytes.withUnsafeBufferPointer { all in
    var pointers: [UnsafePointer<CChar>?] = []
    pointers.reserveCapacity(lengths.count)
    var offset = 0
    for length in lengths {
      pointers.append(all.baseAddress.map { $0 + offset })
      offset += length
    }
    // An int in hiredis 0.14, a long long in 1.x.
    return Int(redisFormatCommandArgv(&command, Int32(lengths.count), &pointers, lengths))
  }
  guard length > 0, let command else { throw .malformedReply("the command could not be formatted") }
  defer { redisFreeCommand(command) }
  buffer.writeBytes(UnsafeRawBufferPointer(start: command, count: length))
}
