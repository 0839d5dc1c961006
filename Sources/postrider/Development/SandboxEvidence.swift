import Foundation
import PostriderCore
import PrivateServers

/// What the sandbox has shown so far, compared with what it must show. Read through the API only.
struct SandboxEvidence {
  /// One mailbox's part.
  struct Row {
    var address: String
    var tested: Bool
    var slotPolls: Int
    var failures: Int
    var delivered: Int
    var deliveredAfterFirstPoll: Int
    var stored: Int
    var doubled: Int
    var lost: Int
  }

  var rows: [Row]
  /// What is still missing, in words; `nil` when everything was seen.
  var missing: String? {
    for row in rows {
      if !row.tested { return "\(row.address) is not tested and enabled in both directions" }
      if row.doubled > 0 { return "\(row.address) holds \(row.doubled) messages more than once" }
      if row.delivered < 3 { return "only \(row.delivered) messages were delivered to \(row.address)" }
      if row.deliveredAfterFirstPoll < 1 { return "no message reached \(row.address) after its first poll" }
      if row.lost > 0 { return "\(row.lost) messages delivered to \(row.address) are not stored" }
      if row.slotPolls < 2 { return "\(row.address) was polled \(row.slotPolls) times by its slots, not twice" }
    }
    return nil
  }

  /// Reads runs and messages of every mailbox.
  static func gather(
    mailboxes: [Mailbox], since: Date, mail: MailSandbox, log: DeliveryLog, client: APIClient
  ) async throws -> SandboxEvidence {
    let page: Page<Mailbox> = try await client.get("/mailboxes", [("limit", "500")])
    let now = Dictionary(page.items.map { ($0.id, $0) }, uniquingKeysWith: { $1 })
    var rows: [Row] = []
    for mailbox in mailboxes {
      let runs = try await all(
        "/runs", [("kind", "poll"), ("mailbox", "\(mailbox.id)")], of: RunRecord.self, client
      ) { $0.startedAt >= since }
      let emails = try await all("/emails", [("mailbox", "\(mailbox.id)")], of: EmailRecord.self, client) { _ in true }
      let delivered = mail.deliveredMessageIDs(to: mailbox.address).map(DeliveryLog.bare)
      let stored = Dictionary(
        emails.compactMap { email in email.envelope.messageID.map { ($0, 1) } }, uniquingKeysWith: +)
      let successful = runs.filter { $0.result == .success }
      let firstPoll = successful.map(\.finishedAt).min() ?? .distantFuture
      let state = now[mailbox.id]
      rows.append(
        Row(
          address: mailbox.address,
          tested: state.map { [$0.incoming, $0.outgoing].allSatisfy { $0.enabled && $0.status == .success } } ?? false,
          slotPolls: successful.count { $0.trigger == .slot }, failures: runs.count - successful.count,
          delivered: delivered.count,
          deliveredAfterFirstPoll: delivered.count { (log.time(of: $0) ?? .distantPast) > firstPoll },
          stored: delivered.count { stored[$0] != nil },
          doubled: stored.values.count { $0 > 1 },
          lost: delivered.count { stored[$0] == nil }))
    }
    return SandboxEvidence(rows: rows)
  }

  /// Every page of a list, newest first, while `wanted` holds.
  private static func all<Item: Decodable & Sendable & Encodable>(
    _ path: String, _ query: [(String, String?)], of type: Item.Type, _ client: APIClient, while wanted: (Item) -> Bool
  ) async throws -> [Item] {
    var items: [Item] = []
    var cursor: String?
    repeat {
      let page: Page<Item> = try await client.get(path, query + [("limit", "500"), ("cursor", cursor)])
      items += page.items.filter(wanted)
      cursor = page.items.last.map(wanted) == true ? page.nextCursor : nil
    } while cursor != nil
    return items
  }

  /// The summary table.
  func show(on screen: Screen) {
    var table = Table(
      .text("mailbox"), .text("enabled"), .number("polls by slot"), .number("failures"), .number("delivered"),
      .number("stored"), .number("lost"), .number("doubled"))
    for row in rows {
      table.add(
        row.address, row.tested ? "yes" : "no", "\(row.slotPolls)", "\(row.failures)", "\(row.delivered)",
        "\(row.stored)", "\(row.lost)", "\(row.doubled)")
    }
    screen.say(table.rendered())
    screen.say(
      "mailboxes \(rows.count) · messages \(rows.reduce(0) { $0 + $1.stored }) of "
        + "\(rows.reduce(0) { $0 + $1.delivered }) · polls by slot \(rows.reduce(0) { $0 + $1.slotPolls }) · "
        + "failures \(rows.reduce(0) { $0 + $1.failures })")
  }
}
