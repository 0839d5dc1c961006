/// The queue's scripts: each changes the state in one step, so no crash falls between two. Their keys, arguments and
/// returns stand at the head of each file in `Scripts`.
enum RedisScript: String, CaseIterable, Sendable {
  case open
  case update
  case enqueue
  case claim
  case renew
  case complete
  case giveBack
  case withdraw
  case stats
  case inspect
  case verify
  // The server guard's: without epochs, with keys of their own.
  case breakerAdmit
  case breakerReport
  case breakerExtend
  case breakerView
  case breakerRecovery
  case breakerList
  case login
  case loginSettle

  /// The whole text, with the shared parts in front.
  var source: String {
    let parts: [[UInt8]] =
      switch self {
      case .open: [PackageResources.open_lua]
      case .update: [PackageResources.prelude_lua, PackageResources.update_lua]
      case .enqueue: [PackageResources.prelude_lua, PackageResources.enqueue_lua]
      case .claim: [PackageResources.prelude_lua, PackageResources.release_lua, PackageResources.claim_lua]
      case .renew: [PackageResources.prelude_lua, PackageResources.renew_lua]
      case .complete: [PackageResources.prelude_lua, PackageResources.release_lua, PackageResources.complete_lua]
      case .giveBack: [PackageResources.prelude_lua, PackageResources.release_lua, PackageResources.give_back_lua]
      case .withdraw: [PackageResources.prelude_lua, PackageResources.withdraw_lua]
      case .stats: [PackageResources.prelude_lua, PackageResources.stats_lua]
      case .inspect: [PackageResources.prelude_lua, PackageResources.inspect_lua]
      case .verify: [PackageResources.prelude_lua, PackageResources.verify_lua]
      case .breakerAdmit: Self.breaker + [PackageResources.breaker_admit_lua]
      case .breakerReport: Self.breaker + [PackageResources.breaker_report_lua]
      case .breakerExtend: Self.breaker + [PackageResources.breaker_extend_lua]
      case .breakerView: Self.breaker + [PackageResources.breaker_view_lua]
      case .breakerRecovery: Self.breaker + [PackageResources.breaker_recovery_lua]
      case .breakerList: [PackageResources.guard_clock_lua, PackageResources.breaker_list_lua]
      case .login: [PackageResources.guard_clock_lua, PackageResources.login_lua]
      case .loginSettle: [PackageResources.guard_clock_lua, PackageResources.login_settle_lua]
      }
    return parts.map { String(decoding: $0, as: UTF8.self) }.joined(separator: "\n")
  }

  private static let breaker: [[UInt8]] = [PackageResources.guard_clock_lua, PackageResources.breaker_lua]
}
