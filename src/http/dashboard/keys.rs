pub const VIEWS: &[super::View] = &[];
