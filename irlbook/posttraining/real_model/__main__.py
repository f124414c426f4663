from irlbook.posttraining.real_model.study import main

raise SystemExit(main())
