/// The queue's scripts: each changes the state in one step, so no crash falls between two. Their keys, arguments and
/// returns stand at the head of each file in `Scripts`.
enum RedisScript: String, CaseIterable, Sendable {
  case open
  case update
  case hold
  case enqueue
  case claim
  case renew
  case complete
  case giveBack
  case withdraw
  case announce
  case poisoned
  case stats
  case profiles
  case inspect
  case repair
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
  case loginRefused

  /// The whole text, with the shared parts in front.
  var source: String {
    let prelude = PackageResources.prelude_lua
    let release = PackageResources.release_lua
    let parts: [[UInt8]] =
      switch self {
      case .open: [PackageResources.open_lua]
      case .update: [prelude, PackageResources.update_lua]
      case .hold: [prelude, PackageResources.hold_lua]
      case .enqueue: [prelude, PackageResources.enqueue_lua]
      case .claim: [prelude, release, PackageResources.claim_lua]
      case .renew: [prelude, PackageResources.renew_lua]
      case .complete: [prelude, release, PackageResources.complete_lua]
      case .giveBack: [prelude, release, PackageResources.give_back_lua]
      case .withdraw: [prelude, PackageResources.withdraw_lua]
      case .announce: [prelude, PackageResources.announce_lua]
      case .poisoned: [prelude, PackageResources.poisoned_lua]
      case .stats: [prelude, PackageResources.stats_lua]
      case .profiles: [prelude, PackageResources.profiles_lua]
      case .inspect: [prelude, PackageResources.inspect_lua]
      case .repair: [prelude, PackageResources.repair_lua]
      case .verify: [prelude, PackageResources.verify_lua]
      case .breakerAdmit: Self.breaker + [PackageResources.breaker_admit_lua]
      case .breakerReport: Self.breaker + [PackageResources.breaker_report_lua]
      case .breakerExtend: Self.breaker + [PackageResources.breaker_extend_lua]
      case .breakerView: Self.breaker + [PackageResources.breaker_view_lua]
      case .breakerRecovery: Self.breaker + [PackageResources.breaker_recovery_lua]
      case .breakerList: [PackageResources.guard_clock_lua, PackageResources.breaker_list_lua]
      case .login: [PackageResources.guard_clock_lua, PackageResources.login_tried_lua, PackageResources.login_lua]
      case .loginSettle: [PackageResources.guard_clock_lua, PackageResources.login_settle_lua]
      case .loginRefused:
        [PackageResources.guard_clock_lua, PackageResources.login_tried_lua, PackageResources.login_refused_lua]
      }
    return parts.map { String(decoding: $0, as: UTF8.self) }.joined(separator: "\n")
  }

  private static let breaker: [[UInt8]] = [PackageResources.guard_clock_lua, PackageResources.breaker_lua]
}
