enum PrivateServersPlaceholder {}
