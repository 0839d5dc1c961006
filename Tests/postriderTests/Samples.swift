import Foundation
import PostriderCore

@testable import postrider

/// Values to answer with.
enum Sample {
  static let moment = Date(timeIntervalSince1970: 1_772_442_000)

  static func profile(_ id: Int64, _ name: String) -> ServerProfile {
    let server = ServerSettings(host: "mail.example.com", port: 995, tls: .implicit, credentials: .mailbox)
    return ServerProfile(
      id: ProfileID(id), organizationID: OrganizationID(1), name: name, type: .pop3SMTP, incoming: server,
      outgoing: server, createdAt: moment, updatedAt: moment)
  }

  static func mailbox(_ id: Int64, _ change: (inout Mailbox) -> Void = { _ in }) -> Mailbox {
    var mailbox = Mailbox(
      id: MailboxID(id), organizationID: OrganizationID(1), address: "m\(id)@example.com",
      owner: MailboxOwner(kind: .user, id: id, name: "Owner \(id)"), profileID: ProfileID(1), profileName: "Example",
      incoming: DirectionState(method: .serverSideSync, notRunningReason: "not-tested"),
      outgoing: DirectionState(method: .serverSideSync, notRunningReason: "not-tested"), createdAt: moment,
      updatedAt: moment)
    change(&mailbox)
    return mailbox
  }

  static func run(
    _ id: Int64, _ kind: JobKind, _ result: RunResult, _ change: (inout RunRecord) -> Void = { _ in }
  )
    -> RunRecord
  {
    var run = RunRecord(
      id: RunID(id), mailboxID: MailboxID(1), mailboxAddress: "m1@example.com", kind: kind, trigger: .request,
      worker: "worker-1", fence: Fence(7), dueAt: moment, startedAt: moment.addingTimeInterval(1),
      finishedAt: moment.addingTimeInterval(3.5), result: result)
    change(&run)
    return run
  }

  /// A test whose login was refused.
  static let failedTest = run(8, .test, .failure) {
    $0.failure = Failure(.authRejected, serverWords: "-ERR [AUTH] \u{1B}[31mno")
    $0.steps = [
      TraceStep(
        direction: .incoming, name: .connect, tried: "pop.example.com:995 → 192.0.2.1", result: .ok,
        startedAt: moment, milliseconds: 12.34),
      TraceStep(
        direction: .incoming, name: .authenticate, tried: "AUTH PLAIN", result: .failed, startedAt: moment,
        milliseconds: 5, serverWords: "-ERR [AUTH] \u{1B}[31mno", code: .authRejected),
    ]
  }

  static let email = EmailRecord(
    id: EmailID(5), mailboxID: MailboxID(1), mailboxAddress: "m1@example.com", uidl: "u1",
    envelope: MessageEnvelope(
      subject: "hello \u{1B}]0;owned\u{7}", from: [EmailAddress(name: "A", address: "a@example.com")]),
    sizeOctets: 12_345, storedAt: moment,
    attachments: [AttachmentRecord(fileName: "a.pdf", contentType: "application/pdf", sizeOctets: 9, dropped: true)],
    text: "line one\n\u{1B}[2Jline two", attachmentCount: 1)

  static func page<Item>(_ items: [Item]) -> Page<Item> { Page(items: items, nextCursor: nil, total: items.count) }
}
