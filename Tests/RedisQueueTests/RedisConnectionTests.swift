import NIOCore
import PostriderCore
import Testing

@testable import RedisQueue

@Suite("Redis connection", .gated, .timeLimit(.minutes(3)))
struct RedisConnectionTests {
  @Test("many requests in flight get their own replies")
  func pipelining() async throws {
    try await withRawConnection { connection in
      try await withThrowingTaskGroup(of: Bool.self) { group in
        for number in 0..<1_000 {
          let text = String(repeating: "x", count: number % 97) + String(number)
          group.addTask { try await connection.command(["ECHO", text]) == .string(text) }
        }
        for try await matches in group { #expect(matches) }
      }
    }
  }

  @Test("replies come in the order of the requests, errors between them included")
  func order() async throws {
    try await withRawConnection { connection in
      let key = "order\(UInt32.random(in: 0...UInt32.max))"
      async let first = connection.send(["INCR", key])
      async let second = connection.send(["HGET", key, "x"])
      async let third = connection.send(["DEL", key])
      let replies = try await [first, second, third]
      #expect(replies.contains { if case .error(let text) = $0 { text.hasPrefix("WRONGTYPE") } else { $0 == .null } })
      #expect(try await connection.send(["PING"]) == .string("PONG"))
    }
  }

  @Test("more requests than the bound are refused, the others answered")
  func bound() async throws {
    let server = try RedisServerProcess()
    defer { server.stop() }
    let proxy = try await TCPProxy.start(to: server.directory + "/s")
    defer { proxy.stop() }
    try await withRawConnection("redis://127.0.0.1:\(proxy.port)") { connection in
      // No reply comes before the bound was met.
      proxy.set(.silent)
      let refused = await withTaskGroup(of: Bool.self) { group in
        for _ in 0..<(RESPHandler.maximumInFlight + 100) {
          group.addTask {
            do { return try await connection.send(["PING"]) != .string("PONG") } catch { return true }
          }
        }
        var refused = 0
        for await isRefused in group where isRefused {
          refused += 1
          if refused == 100 { proxy.set(.open) }
        }
        return refused
      }
      #expect(refused == 100)
    }
  }

  @Test("requests waiting when the connection ends fail")
  func closed() async throws {
    try await withRawConnection { connection in
      let waiting = Task { try await connection.send(["BLPOP", "never\(UInt32.random(in: 0...UInt32.max))", "0"]) }
      try await withRawConnection { other in
        _ = try await eventually("the request is waiting") {
          try await other.command(["INFO", "clients"]).string?.contains("blocked_clients:0") == false ? true : nil
        }
      }
      let start = ContinuousClock.now
      connection.close()
      await #expect(throws: JobQueueError.unavailable(reason: "the connection was closed")) { try await waiting.value }
      #expect(ContinuousClock.now - start < .seconds(20))
    }
  }

  @Test("replies cut anywhere are read whole")
  func cutReplies() throws {
    let text = "*3\r\n:42\r\n$5\r\nhe\r\no\r\n*2\r\n$-1\r\n-ERR no\r\n+OK\r\n$0\r\n\r\n"
    let reader = RESPReader()
    var values: [RedisValue] = []
    for byte in text.utf8 {
      try withUnsafeBytes(of: byte) { try reader.feed($0) }
      while let value = try reader.next() { values.append(value) }
    }
    #expect(
      values == [
        .array([.integer(42), .string("he\r\no"), .array([.null, .error("ERR no")])]), .string("OK"), .string(""),
      ])
  }

  @Test("what is no reply is an error")
  func malformed() throws {
    let reader = RESPReader()
    Array("HTTP/1.1 400 Bad Request\r\n".utf8).withUnsafeBytes { bytes -> Void in
      #expect(throws: RedisConnectionFailure.self) {
        try reader.feed(bytes)
        _ = try reader.next()
      }
    }
  }

  @Test("commands are formatted with every byte")
  func formatting() throws {
    var buffer = ByteBuffer()
    try writeCommand(["SET", "", "a\r\nbé%s"], to: &buffer)
    #expect(String(buffer: buffer) == "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$8\r\na\r\nbé%s\r\n")
  }

  @Test("configuration out of range is refused")
  func ranges() {
    let url = "redis://localhost"
    #expect(throws: JobQueueError.self) { try RedisQueueConfiguration(url: url, keyPrefix: "") }
    #expect(throws: JobQueueError.self) { try RedisQueueConfiguration(url: url, keyPrefix: "a*") }
    #expect(throws: JobQueueError.self) { try RedisQueueConfiguration(url: url, shards: 65) }
    #expect(throws: JobQueueError.self) { try RedisQueueConfiguration(url: url, leaseDuration: .zero) }
    #expect(throws: JobQueueError.self) { try RedisQueueConfiguration(url: url, callTimeout: .seconds(100)) }
  }

  @Test("pauses between attempts grow from 50 ms to the maximum")
  func reconnectDelay() {
    var delay = ReconnectDelay(maximum: .seconds(2))
    let first = delay.next()
    #expect(first >= .milliseconds(25) && first <= .milliseconds(75))
    for _ in 0..<20 { _ = delay.next() }
    let late = delay.next()
    #expect(late >= .seconds(1) && late <= .seconds(3))
    delay.reset()
    #expect(delay.next() <= .milliseconds(75))
  }
}
