import Hummingbird
import PostriderCore

extension APIRoutes {
  @Sendable static func showAlertMail(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.alertMail(for: call.principal))
  }

  @Sendable static func changeAlertMail(_ services: APIServices, _ call: APICall) async throws -> Response {
    let change = try call.decode(AlertMailChange.self)
    return try call.answer(try await services.store.updateAlertMail(change, by: call.principal))
  }
}
