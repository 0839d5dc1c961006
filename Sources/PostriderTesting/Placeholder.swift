enum PostriderTestingPlaceholder {}
