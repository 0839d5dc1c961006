import NIOCore
import NIOPosix

@testable import RedisQueue

/// A server on loopback that answers each command with given bytes.
final class StubServer: Sendable {
  private let channel: any Channel
  var port: Int { channel.localAddress?.port ?? 0 }

  private init(channel: any Channel) { self.channel = channel }

  static func start(_ answer: @escaping @Sendable ([String]) -> String) async throws -> StubServer {
    let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(Handler(answer: answer))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    return StubServer(channel: channel)
  }

  func stop() { channel.close(promise: nil) }

  private final class Handler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let reader = RESPReader()
    private let answer: @Sendable ([String]) -> String

    init(answer: @escaping @Sendable ([String]) -> String) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      do {
        // A command has the form of a reply: an array of strings.
        try unwrapInboundIn(data).withUnsafeReadableBytes { try reader.feed($0) }
        while let command = try reader.next()?.array {
          context.writeAndFlush(NIOAny(ByteBuffer(string: answer(command.compactMap(\.string)))), promise: nil)
        }
      } catch {
        context.close(promise: nil)
      }
    }
  }
}
