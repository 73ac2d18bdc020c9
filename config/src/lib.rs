//! What the operator said, made impossible to misread.
