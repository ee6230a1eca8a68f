"""What HTTP sees: the blueprints, whose views read top-down as the pipeline, and the document made of them."""
