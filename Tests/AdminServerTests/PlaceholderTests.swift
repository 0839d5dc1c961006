import Testing

@Test func placeholderAdminServer() {}
