"""The units of work: a policy and one library call each. They return references and numbers."""
